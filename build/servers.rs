//! Names of servers in the completions: what the shells ask of `monitor_myvnc status --names`, with the
//! options of the command line that say where the servers are.

use clap::Command;

const BASH: &str = r#"# Adds the names of the servers, as the words before say where they are. What a program prints may not get into
# the list of compgen -W, which is expanded.
_monitor_myvnc_servers() {
    local i name value options=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            --)
                break
                ;;
            --config | --state-dir)
                value="${COMP_WORDS[i + 1]}"
                [[ ${value} == = ]] && value="${COMP_WORDS[i + 2]}"
                options+=("${COMP_WORDS[i]}=${value/#\~\//${HOME}/}")
                ;;
        esac
    done
    while IFS= read -r name; do
        [[ ${name} == "${cur}"* ]] && COMPREPLY+=("$(printf %q "${name}")")
    done < <("${COMP_WORDS[0]}" status --names "${options[@]}" 2>/dev/null)
}

"#;

/// What follows `--` is a command of its own.
const BASH_COMMAND: &str = r#"            if [[ " ${COMP_WORDS[*]:0:COMP_CWORD} " == *" -- "* ]] ; then
                COMPREPLY=( $(compgen -c -f -- "${cur}") )
                return 0
            fi
"#;

const ZSH: &str = r#"# The names of the servers, as the line before says where they are: `words` lacks options of the check.
(( $+functions[_monitor_myvnc_servers] )) ||
_monitor_myvnc_servers() {
    local -i i
    local -a typed place names
    typed=(${(Q)${(z)LBUFFER}})
    for ((i = 2; i <= $#typed; i++)); do
        case $typed[i] in
            (--)
                break
                ;;
            (--config=* | --state-dir=*)
                place+=("${typed[i]%%=*}=${~${typed[i]#*=}}")
                ;;
            (--config | --state-dir)
                place+=("$typed[i]=${~typed[i + 1]}")
                ;;
        esac
    done
    names=(${(f)"$(_call_program servers monitor_myvnc status --names ${(q)place} 2>/dev/null)"})
    compadd -a names
}

"#;

const FISH: &str = r#"
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

complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand {VERBS}; and not contains -- -- (commandline -opc)" -f -a "(__fish_monitor_myvnc_servers)"
complete -c monitor_myvnc -n "__fish_monitor_myvnc_using_subcommand inhibit; and contains -- -- (commandline -opc)" -f -a "(__fish_complete_subcommand --fcs-skip=(math (contains -i -- -- (commandline -opc))))"
"#;

/// The option that is for the completions only.
const NAMES: &str = "names";

/// How the script for bash completes options.
const BASH_OPTIONS: &str = r#"COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )"#;

/// Names as further words of each verb.
///
/// # Errors
/// clap_complete writes something else than it did.
pub(crate) fn bash(script: &str, verbs: &Command) -> Result<String, String> {
    let wrong = || "the completion for bash has no options of verbs".to_owned();
    let script = script.replace(&format!(" --{NAMES}\""), "\"");
    // Those of the verbs come last.
    let label = "\n        monitor_myvnc__subcmd__";
    let (check, verbs_part) = script.split_once(label).ok_or_else(wrong)?;
    if verbs_part.matches(BASH_OPTIONS).count() != 2 * verbs.get_subcommands().count() {
        return Err(wrong());
    }
    let with_servers = format!("{BASH_OPTIONS}; _monitor_myvnc_servers");
    let verbs_part = verbs_part.replace(BASH_OPTIONS, &with_servers);
    let text = format!("{BASH}{check}{label}{verbs_part}");
    let (before, after) = text
        .split_once(&format!("{label}inhibit)\n"))
        .ok_or_else(wrong)?;
    let (options, after) = after.split_once('\n').ok_or_else(wrong)?;
    Ok(format!(
        "{before}{label}inhibit)\n{options}\n{BASH_COMMAND}{after}"
    ))
}

/// Names as the further arguments of each verb.
///
/// # Errors
/// clap_complete writes something else than it did.
pub(crate) fn zsh(script: &str) -> Result<String, String> {
    let wrong = "the completion for zsh has no servers";
    let is_names = |line: &&str| line.contains(&format!("--{NAMES}["));
    let mut lines = Vec::new();
    for line in script.lines().filter(|line| !is_names(line)) {
        let servers = line
            .starts_with("'*::servers ")
            .then(|| line.strip_suffix(":' \\"));
        match servers {
            Some(servers) => {
                let servers = servers.ok_or(wrong)?;
                lines.push(format!("{servers}:_monitor_myvnc_servers' \\"));
            }
            None => lines.push(line.to_owned()),
        }
    }
    let text = lines.join("\n") + "\n";
    let (before, after) = text.split_once("_monitor_myvnc() {\n").ok_or(wrong)?;
    Ok(format!("{before}{ZSH}_monitor_myvnc() {{\n{after}"))
}

/// Names as the arguments of each verb.
pub(crate) fn fish(script: &str, verbs: &Command) -> String {
    let is_names = |line: &&str| line.contains(&format!(" -l {NAMES} "));
    let lines = script.lines().filter(|line| !is_names(line));
    let lines: Vec<&str> = lines.collect();
    let verbs = verbs.get_subcommands().map(Command::get_name);
    let verbs: Vec<&str> = verbs.collect();
    format!(
        "{}\n{}",
        lines.join("\n"),
        FISH.replace("{VERBS}", &verbs.join(" "))
    )
}
