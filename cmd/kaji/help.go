// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// shortHelp makes the help of a verb with upstream's many flags short: it shows
// those named here, and all with --all.
func shortHelp(cmd *cobra.Command, first ...string) {
	all := cmd.Flags().Bool("all", false, "with --help: show every flag")
	first = append(first, "all", "help")
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		cmd.InitDefaultHelpFlag()
		out := cmd.OutOrStdout()
		if _, err := fmt.Fprintf(out, "Usage:\n  %s\n\n", cmd.UseLine()); err != nil {
			return err
		}
		parts := split(cmd.Flags(), first)
		if err := section(out, "Flags:", parts.first); err != nil {
			return err
		}
		if !*all {
			_, err := fmt.Fprintf(out, "Upstream's flags are taken as well: `%s --help --all` shows them.\n", cmd.CommandPath())
			return err
		}
		if err := section(out, "Upstream's flags:", parts.more); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "Accepted for upstream's sake, without effect here:\n%s\n", wrapped(parts.idle))
		return err
	})
}

// flagParts are a verb's flags: those people want first, the others, and the
// names of those without effect.
type flagParts struct {
	first, more *pflag.FlagSet
	idle        []string
}

func split(fs *pflag.FlagSet, first []string) flagParts {
	parts := flagParts{first: pflag.NewFlagSet("", pflag.ContinueOnError), more: pflag.NewFlagSet("", pflag.ContinueOnError)}
	parts.first.SortFlags = false
	for _, name := range first {
		if f := fs.Lookup(name); f != nil {
			parts.first.AddFlag(f)
		}
	}
	fs.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden || slices.Contains(first, f.Name):
		case strings.Contains(f.Usage, "no effect here"):
			parts.idle = append(parts.idle, "--"+f.Name)
		default:
			parts.more.AddFlag(f)
		}
	})
	return parts
}

func section(out io.Writer, title string, fs *pflag.FlagSet) error {
	_, err := fmt.Fprintf(out, "%s\n%s\n", title, fs.FlagUsagesWrapped(110))
	return err
}

// wrapped writes words in lines.
func wrapped(words []string) string {
	var b strings.Builder
	length := 0
	for _, w := range words {
		if length+len(w) > 105 {
			b.WriteString("\n")
			length = 0
		}
		if length == 0 {
			b.WriteString("  ")
		}
		b.WriteString(w + " ")
		length += len(w) + 1
	}
	return b.String()
}
