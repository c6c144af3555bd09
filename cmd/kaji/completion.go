// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"kaji/internal/app/kubectl"
)

// bashParts stand in for what completion scripts need of the package
// bash-completion where that is not loaded.
const bashParts = `# This script works with and without the package bash-completion. Without it, what the
# script needs of it stands here; names of files complete a little simpler then.
if ! declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
    _get_comp_words_by_ref()
    {
        # Called with: -n =: cur prev words cword. Bash parts words at = and :, here
        # they are put together again.
        local i word glue=''
        words=()
        cword=0
        for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
            word=${COMP_WORDS[i]}
            if ((i > 0)) && [[ ${#words[@]} -gt 1 ]] && { [[ $word == [=:]* ]] || [[ -n $glue ]]; }; then
                words[${#words[@]}-1]+=$word
            else
                words+=("$word")
            fi
            if [[ $word == *[=:] ]]; then glue=1; else glue=''; fi
            if ((i == COMP_CWORD)); then cword=$((${#words[@]} - 1)); fi
        done
        cur=${words[cword]}
        prev=''
        if ((cword > 0)); then prev=${words[cword-1]}; fi
    }
fi
if ! declare -F _filedir >/dev/null 2>&1; then
    _filedir()
    {
        local kind=-f
        if [[ $1 == -d ]]; then kind=-d; fi
        local IFS=$'\n'
        COMPREPLY+=($(compgen $kind -- "$cur"))
        compopt -o filenames 2>/dev/null
    }
fi
`

// completionCommand prints the scripts that complete kaji's verbs and kubectl's.
func completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "completion bash|zsh|fish|powershell",
		Short:   "Print the script by which a shell completes kaji's verbs",
		GroupID: "tool",
		Long: `Print the script by which a shell completes kaji's verbs and, after kaji kubectl, what
kubectl knows: kinds, names, namespaces.

  bash   source <(kaji completion bash)      in ~/.bashrc; the package bash-completion is not needed
  zsh    source <(kaji completion zsh)       in ~/.zshrc, after: autoload -Uz compinit && compinit
  fish   kaji completion fish | source       in ~/.config/fish/config.fish

For kubectl itself: source <(kubectl completion bash), or zsh, fish.`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				if _, err := io.WriteString(out, bashParts); err != nil {
					return err
				}
				return cmd.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(out)
			case "fish":
				return cmd.Root().GenFishCompletion(out, true)
			}
			return cmd.Root().GenPowerShellCompletionWithDesc(out)
		},
	}
	return cmd
}

// completeKubectl answers what follows `kaji kubectl` on a command line that is
// being completed: kubectl does. It returns when something else is asked.
func completeKubectl(args []string) error {
	if len(args) < 3 || args[0] != cobra.ShellCompRequestCmd && args[0] != cobra.ShellCompNoDescRequestCmd || args[1] != "kubectl" {
		return nil
	}
	return kubectl.Exec(append([]string{args[0]}, args[2:]...))
}

// runKubectl is kubectl, whose completion script for bash gets what it needs.
func runKubectl(args []string) error {
	if len(args) == 2 && args[0] == "completion" && args[1] == "bash" && !slices.Contains(args, "--help") {
		if _, err := io.WriteString(os.Stdout, bashParts); err != nil {
			return err
		}
	}
	return kubectl.Exec(args)
}
