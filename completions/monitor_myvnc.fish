# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_monitor_myvnc_global_optspecs
    string join \n url= logfile= restart-cmd= config= server= check-config dry-run collect-diagnostics timeout= retries= retry-delay= no-verify-ssl ca-cert= listen= user= process-pattern= run-as= stop-timeout= start-timeout= restart-policy= max-restarts= start-grace= unwedge unwedge-for= log-history-minutes= server-log= dump-cmd= notify-cmd= journal ping-url= metrics-dir= cert-warn-days= quiet log-level= debug state-dir= h/help V/version
end

function __fish_monitor_myvnc_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_monitor_myvnc_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_monitor_myvnc_using_subcommand
    set -l cmd (__fish_monitor_myvnc_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l url -d 'URL of the MyVNC server (http or https)' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l logfile -d 'Log file. The run lock, .STEM.lock, and the restart command\'s output, STEM.restart.log, are beside it; STEM is the log\'s name without its extension' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l restart-cmd -d 'Command that starts the server. /bin/bash runs it, or /bin/sh if there is no bash' -r -f -a "(__fish_complete_command)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l config -d 'Read the settings of one or more servers from this TOML file. Its keys are the long option names; options on the command line override it' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l server -d 'Watch only this server of the configuration file. May be repeated' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l timeout -d 'Time limit of one health check: name resolution, connect, TLS and response headers together' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l retries -d 'Additional checks before the server counts as down' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l retry-delay -d 'Pause before each additional check' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l ca-cert -d 'Trust the certificates in this PEM file too: a CA\'s, or the server\'s own self-signed certificate. Name and expiry date are still verified' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l listen -d 'Address at which the server itself listens, if the URL leads to a proxy [default: where the last healthy check found the server, if that still listens; else host and port of server_config.json in the restart command\'s --config_dir; else where the server was last found; else the URL\'s]' -r
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l user -d 'Name or ID of the user that the server runs as. Only this user\'s processes are the server, and an answer from this user on the server\'s port counts as healthy' -r -f -a "(__fish_complete_users)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l process-pattern -d 'Regular expression that matches anywhere in the server\'s arguments, joined by spaces (^ and $ anchor it). It replaces the built-in rule for the arguments: Python runs main.py, run_server.py or manage.py of a MyVNC' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l run-as -d 'User (name or number) that the restart command runs as. Only root can name a user other than its own [default: for root, the server\'s owner if the command names a MyVNC script, else the monitor\'s user]' -r -f -a "(__fish_complete_users)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l stop-timeout -d 'Time from SIGTERM to SIGKILL' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l start-timeout -d 'Time that the server has to respond after the restart command was started' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l restart-policy -d 'When to restart a server that does not answer: always, only where that can help, or never' -r -f -a "always\t'In each run that finds it down'
useful\t'Where it can help; elsewhere once, and then not until something has changed'
never\t'Never: only say what is wrong'"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l max-restarts -d 'Restarts in an hour; further ones wait until 5 minutes after the last. Restarts that do not help are made less and less often. 0: neither' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l start-grace -d 'Wait for a server that was started less than this time ago, instead of restarting it' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l unwedge-for -d 'Time limit of --unwedge, at most 55' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l log-history-minutes -d 'Minutes of the server\'s own log that a diagnosis shows, 200 lines at most' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l server-log -d 'Where to look for the server\'s own log if the server holds none open and the log of its last start cannot be shown: the newest file that matches' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l dump-cmd -d 'Command to run before the server is stopped, for 10 seconds at most. Its output goes to the log; {pid} in it is replaced with the server\'s PID' -r -f -a "(__fish_complete_command)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l notify-cmd -d 'Command that is run for each event, such as a restart that did not help, with the event in its environment and as JSON on stdin. An event is kept until the command has taken it' -r -f -a "(__fish_complete_command)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l ping-url -d 'URL to request at the end of each run, so that somebody notices when no more runs take place. After a run that did not end well, /fail is appended' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l metrics-dir -d 'Directory in which a file of metrics for each server is kept, for the textfile collector of the Prometheus node exporter' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l cert-warn-days -d 'Warn of a certificate that expires within this number of days; 0: do not warn' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l log-level -d 'Least severe lines to log, unless --debug is given' -r -f -a "debug\t'Also each HTTP request and its result'
info\t'Also what the run does'
warning\t'Also what may need attention'
error\t'Also what failed'
critical\t'Only what needs attention now'"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l state-dir -d 'Directory of the server\'s record (its address, process and user at the last healthy check), its history, pauses and waiting events, and of the restart lock [default: /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l check-config -d 'Print the settings of each server, mistakes and warnings, and exit. Defaults that a run determines (those of listen and run-as) are not printed. Without --config and --url, /etc/monitor_myvnc.toml is read'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l dry-run -d 'Check the server; if it is down, log the cause and what would be stopped and run. Stops and starts nothing'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l collect-diagnostics -d 'Log what the server is doing now, healthy or not. Stops and starts nothing'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l no-verify-ssl -d 'Accept any TLS certificate'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l unwedge -d 'If one client or one child of the server blocks it, close that connection or end that child first, and restart only if that does not help'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l journal -d 'Write each event to the systemd journal too'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l quiet -d 'Write only to the log file, not to stdout and stderr. Usage errors, a log that cannot be written, and a run that cannot begin are reported on stderr all the same'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -l debug -d 'Log everything, whatever --log-level says, and add DEBUG lines about the lock, the processes found, the restart command\'s PID and durations'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -s h -l help -d 'Print this help'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -s V -l version -d 'Print the version'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "status" -d 'Print how each server is, how available it was, and its last incidents'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "history" -d 'Print what happened to the servers'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "report" -d 'Print a summary of a week, for a mail or as a web page'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "pause" -d 'Stop and restart nothing for a while. Checks go on'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "resume" -d 'End a pause and a hold-off: the next run restarts a server that is down'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "inhibit" -d 'Run a command, and stop and restart nothing as long as it runs'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_needs_command" -f -a "notify" -d 'Run the notify command with a sample of an event'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status" -l json -d 'Print one JSON object'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status" -l short -d 'Print one line for each server'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status" -l nagios -d 'Print one line with performance data, and exit as a Nagios plugin does'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand history" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand history" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand history" -l since -d 'How far back: a number and s, m, h or d' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand history" -l by -d 'Count by cause, and how often a restart has helped, or by culprit' -r -f -a "cause\t'What was wrong'
culprit\t'Who or what is to blame'"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand history" -l json -d 'Print one JSON array'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand report" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand report" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand report" -l since -d 'How far back: a number and s, m, h or d [default: 7d, or 30d with --html]' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand report" -l html -d 'Print a web page, in one file without scripts'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand pause" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand pause" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand pause" -l for -d 'How long: a number and s, m, h or d; at most 7d [default: 1h]' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand pause" -l until -d 'Until when: HH:MM, or a date and a time after RFC 3339' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand pause" -l reason -d 'Why, for who looks at the status' -r -f
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand resume" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand resume" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand inhibit" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand inhibit" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand inhibit" -l quiet -d 'Show no progress on a terminal'
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand notify" -l config -d 'Only the servers of this configuration file [default: those of /etc/monitor_myvnc.toml, and all of the state directory]' -r -F
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand notify" -l state-dir -d 'The state directory [default: that of the configuration file, else /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for other users]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand notify" -l test -d 'The event: failed, unless another one is given' -r -f -a "restarted\t'Down, and healed by a restart in the same run'
unwedged\t'Down, and healed without a restart'
failed\t'A restart did not help, or nothing could be touched'
held\t'Down, and the restart is held off'
reminder\t'Still failed or held'
recovered\t'Answers again after failed or held'
flapping\t'The third restart within an hour that worked'
stable\t'Flapping has ended'
expiring\t'The certificate expires soon'"

# The names of the servers, as the words before say where they are.
function __fish_monitor_myvnc_servers
    set -l words (commandline -opc)
    set -l options
    for i in (seq (count $words))
        switch $words[$i]
            case --config --state-dir
                set -q words[(math $i + 1)]
                and set -a options $words[$i]=(string replace -r '^~/' "$HOME/" -- $words[(math $i + 1)])
            case '--config=*' '--state-dir=*'
                set -a options $words[$i]
        end
    end
    $words[1] status --names $options 2>/dev/null
end

complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand status history report pause resume inhibit notify; and not contains -- -- (commandline -opc)" -f -a "(__fish_monitor_myvnc_servers)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand inhibit; and contains -- -- (commandline -opc)" -f -a "(__fish_complete_subcommand --fcs-skip=(math (contains -i -- -- (commandline -opc))))"
