complete -c monitor_myvnc -l url -d 'URL of the MyVNC server to monitor (http or https)' -r -f
complete -c monitor_myvnc -l logfile -d 'Log file; the run lock .STEM.lock and the restart command\'s output STEM.restart.log are beside it' -r -F
complete -c monitor_myvnc -l restart-cmd -d 'Command that starts the server, run by bash (or sh)' -r -f -a "(__fish_complete_command)"
complete -c monitor_myvnc -l config -d 'Read settings from this TOML file, whose keys are these options\' names; flags override it' -r -F
complete -c monitor_myvnc -l server -d 'Watch only this server of the configuration file; may be repeated' -r -f
complete -c monitor_myvnc -l timeout -d 'Bound on one health check: name resolution, connect, TLS and headers' -r -f
complete -c monitor_myvnc -l ca-cert -d 'Also trust the certificates in this PEM file: a CA, or the server\'s own self-signed certificate; name and expiry are still checked' -r -F
complete -c monitor_myvnc -l log-level -d 'Least severe lines to log' -r -f -a "debug\t'Every check too, and what each step rests on'
info\t'What was done'
warning\t'What may need attention'
error\t'What failed'
critical\t'What needs attention now'"
complete -c monitor_myvnc -l stop-timeout -d 'Time from SIGTERM to SIGKILL' -r -f
complete -c monitor_myvnc -l start-timeout -d 'Time for the server to answer once the restart command runs' -r -f
complete -c monitor_myvnc -l retries -d 'Further checks before the server counts as down' -r -f
complete -c monitor_myvnc -l retry-delay -d 'Time between these checks' -r -f
complete -c monitor_myvnc -l process-pattern -d 'What the server\'s arguments, joined by spaces, match, in place of the built-in rule (Python running main.py, run_server.py or manage.py of a MyVNC)' -r -f
complete -c monitor_myvnc -l user -d 'Only processes of this user are the server; accepts this user as its owner' -r -f -a "(__fish_complete_users)"
complete -c monitor_myvnc -l listen -d 'Where the server itself listens, if the URL leads to a proxy [default: from server_config.json in the --config_dir of the restart command, else from the record, else from the URL]' -r
complete -c monitor_myvnc -l run-as -d 'Run the restart command as this user (name or number; another user than the monitor\'s only as root) [default: for root, the server\'s owner if the command names a MyVNC script, else the monitor\'s user]' -r -f -a "(__fish_complete_users)"
complete -c monitor_myvnc -l log-history-minutes -d 'Minutes of the server\'s own log that a diagnosis shows, at most 200 lines' -r -f
complete -c monitor_myvnc -l server-log -d 'The server\'s own log, where it holds none open; the newest that matches' -r -F
complete -c monitor_myvnc -l dump-cmd -d 'Command to run before the server is stopped, 10 seconds at most, with its output in the log; {pid} in it is the server\'s PID' -r -f -a "(__fish_complete_command)"
complete -c monitor_myvnc -l state-dir -d 'Directory of the record of the known server and of the restart lock [default: /var/lib/monitor_myvnc for root, ~/.local/state/monitor_myvnc for others]' -r -f -a "(__fish_complete_directories)"
complete -c monitor_myvnc -l check-config -d 'Print the resolved settings of each server, what is wrong with them, and warnings; without --config and --url, of /etc/monitor_myvnc.toml'
complete -c monitor_myvnc -l collect-diagnostics -d 'Log what the server is doing, healthy or not, and exit; nothing is stopped or started'
complete -c monitor_myvnc -l dry-run -d 'Check, diagnose, and log what would be stopped and run; nothing is stopped or started'
complete -c monitor_myvnc -l quiet -d 'Write to the log file only, nothing to stdout or stderr'
complete -c monitor_myvnc -l no-verify-ssl -d 'Do not verify the server\'s TLS certificate'
complete -c monitor_myvnc -l debug -d 'Log every detail, whatever --log-level says'
complete -c monitor_myvnc -s h -l help -d 'Print help (see more with \'--help\')'
complete -c monitor_myvnc -s V -l version -d 'Print version'
