// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// builtin runs a command that only the shell knows, called as a program.
func builtin(name string) program {
	return func(ctx context.Context, s *stdio, args []string) int {
		return shell(ctx, s, append([]string{"-c", name + ` "$@"`, name}, args...))
	}
}

// sortTool sorts lines: sort [-n] [-r] [-u] [FILE…].
func sortTool(_ context.Context, s *stdio, args []string) int {
	options, files := flagsAndRest(args)
	var all bytes.Buffer
	code := eachInput("sort", s, files, func(in io.Reader) error { _, err := io.Copy(&all, in); return err })
	for _, l := range sortedLines(all.String(), options) {
		fmt.Fprintln(s.out, l)
	}
	return code
}

// sortedLines sorts text's lines as the letters say: n by number, r backwards, u
// each once.
func sortedLines(text, options string) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		order := strings.Compare(a, b)
		if strings.Contains(options, "n") {
			x, _ := strconv.ParseFloat(strings.TrimSpace(a), 64) // what is no number counts as zero
			y, _ := strconv.ParseFloat(strings.TrimSpace(b), 64)
			order = cmp.Compare(x, y)
		}
		if strings.Contains(options, "r") {
			order = -order
		}
		return order
	})
	if strings.Contains(options, "u") {
		lines = slices.Compact(lines)
	}
	return lines
}
