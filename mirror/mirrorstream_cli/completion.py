"""Completing a command line: from the very parser that will read it, so that nothing has to be kept in step.

A shell's script only asks the program; so the same holds for `mirrorstream`, and for `oc mirrorstream`, which runs
`kubectl_complete-mirrorstream` for it.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence

Names = Callable[[str, str, Mapping[str, str]], list[str]]
"""Asks a cluster for names: of a kind, that begin with a word; with the values of the options that were given."""
KINDS = {"namespace": "namespace", "from_namespace": "namespace", "context": "context", "contexts": "context"}
"""What the values of options name, by the options' destinations."""
SUBJECTS = {"STREAM[:TAG]": "stream", "REFERENCE | NAMESPACE/STREAM[:TAG]": "subject"}
"""The same of arguments, by what the help calls them."""

FILES = "\x00files"
"""Stands for the names of files among completions."""
NO_FILES, NO_SPACE, DEFAULT = 4, 2, 0
"""The directives of kubectl's plugin protocol: the shell completes no names of files, and puts no space behind a word."""


def _nobody(_kind: str, _word: str, _given: Mapping[str, str]) -> list[str]:
    return []


def complete(parser: argparse.ArgumentParser, words: Sequence[str], names: Names = _nobody) -> list[str]:
    """What the last of `words` (perhaps empty) may become; FILES stands for any file. `words` begin behind the program's name.

    `names` is asked where a name of the cluster is wanted.
    """
    *before, word = words or [""]
    position = 0
    expects: argparse.Action | None = None
    given: set[str] = set()
    values: dict[str, str] = {}
    for text in before:
        if expects is not None:
            values[expects.dest] = text
            expects = None
        elif text.startswith("-") and text != "-":
            name, equals, value = text.partition("=")
            action = _option(parser, name)
            if action is None and (short := _option(parser, name[:2])) is not None and name[1] != "-":
                # A short option with its value behind it, or several short ones, of which only the last could want one.
                name, equals, value = name[:2], "=" if _takes_value(short) else "", text[2:]
                action = short
            given.add(name)
            if action is not None and equals:
                values[action.dest] = value
            expects = action if action is not None and _takes_value(action) and not equals else None
        else:
            positional = _positionals(parser)
            action = positional[position] if position < len(positional) else None
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  argparse has no public name for it
                if text not in action.choices:
                    return []
                parser, position, given = action.choices[text], 0, set()
            else:
                position += 1
    if expects is not None:
        return _values(expects, word, names, values)
    if word.startswith("-"):
        name, equals, value = word.partition("=")
        if equals:
            action = _option(parser, name)
            return [f"{name}={found}" for found in _values(action, value, names, values) if found != FILES] if action else []
        short = _option(parser, word[:2]) if len(word) > 2 and word[1] != "-" else None
        if short is not None and _takes_value(short):
            return [f"{word[:2]}{found}" for found in _values(short, word[2:], names, values) if found != FILES]
        return sorted(o for o in _options(parser, given) if o.startswith(word))
    positional = _positionals(parser)
    return _values(positional[position], word, names, values) if position < len(positional) else []


def _option(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    return next((action for action in _actions(parser) if name in action.option_strings), None)


def _options(parser: argparse.ArgumentParser, given: set[str]) -> Iterable[str]:
    """The long options (the short where there is no long one) that were not given, but for those that may be repeated."""
    for action in _actions(parser):
        repeatable = isinstance(action, argparse._AppendAction)  # noqa: SLF001  argparse has no public name for it
        if action.option_strings and (repeatable or given.isdisjoint(action.option_strings)):
            yield from action.option_strings


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in _actions(parser) if not action.option_strings]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001  argparse lets nobody else see them


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _values(action: argparse.Action, word: str, names: Names, given: Mapping[str, str]) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices if str(choice).startswith(word)]
    if kind := KINDS.get(action.dest) or SUBJECTS.get(str(action.metavar)):
        return names(kind, word, given)
    return [FILES] if action.metavar in ("F", "DIR") or str(action.metavar).endswith(".yaml") else []


def plugin_answer(found: list[str]) -> str:
    """The completions as kubectl and oc take them from a plugin: one a line, and a directive."""
    names = [name for name in found if name != FILES]
    directive = DEFAULT if FILES in found else NO_FILES
    if names and all(name.endswith("/") for name in names):
        directive |= NO_SPACE  # a stream follows
    return "".join(f"{name}\n" for name in names) + f":{directive}\n"


def script(shell: str) -> str:
    """The script for `bash`, `zsh` or `fish`."""
    return _SCRIPTS[shell]


_SCRIPTS = {
    "bash": """\
# bash completion for mirrorstream: source <(mirrorstream completion bash)
_mirrorstream() {
    local IFS=$'\\n' word answer directive i joined prefix
    local words=()
    # To bash, '=' and ':' are words of their own.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ ${#words[@]} -gt 0 && ($word == [=:] || $joined) ]]; then
            words[${#words[@]}-1]+="$word"
        else
            words+=("$word")
        fi
        joined=
        [[ $word == [=:] ]] && joined=1
    done
    word="${words[${#words[@]}-1]}"
    COMPREPLY=()
    answer=$("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null) || return
    directive="${answer##*:}"
    answer="${answer%:*}"
    COMPREPLY=($answer)
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        prefix="${word%%=*}="
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        prefix="${word%:*}:"
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
    if ((directive & 2)); then
        compopt -o nospace 2>/dev/null
    fi
    if [[ $directive == 0 && ${#COMPREPLY[@]} == 0 ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -F _mirrorstream mirrorstream kubectl-mirrorstream
""",
    "zsh": """\
#compdef mirrorstream kubectl-mirrorstream
# zsh completion for mirrorstream: source <(mirrorstream completion zsh), or as _mirrorstream in a folder of $fpath
_mirrorstream() {
    local -a found
    found=(${(f)"$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"})
    (( ${#found} )) || return 1
    local directive="${found[-1]}"
    found=("${(@)found[1,-2]}")
    if [[ $directive == ":0" ]] && (( ! ${#found} )); then
        _files
    elif [[ $directive == ":6" ]]; then
        compadd -S '' -a found
    else
        compadd -a found
    fi
}
if [[ $funcstack[1] == _mirrorstream ]]; then
    _mirrorstream "$@"
else
    compdef _mirrorstream mirrorstream kubectl-mirrorstream
fi
""",
    "fish": """\
# fish completion for mirrorstream: mirrorstream completion fish | source
function __mirrorstream_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer ($words[1] __complete $words[2..-1] 2>/dev/null)
    set -q answer[1]; or return
    if test "$answer[-1]" = ":0"; and test (count $answer) -eq 1
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $answer[1..-2]
    end
end
complete -c mirrorstream -f -a '(__mirrorstream_complete)'
complete -c kubectl-mirrorstream -f -a '(__mirrorstream_complete)'
""",
}
