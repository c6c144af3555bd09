// SPDX-License-Identifier: Apache-2.0

// Command box is everything in the image localhost/kaji: a handful of small
// programs to try a cluster with where no registry is in reach. Its first
// argument, or the name it is called by, says which: pause, web, client, load,
// crash, or sh, a small POSIX shell with the commonest tools.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// stdio is what a program reads and writes, and where it stands.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	env      []string
	dir      string
}

// path makes a path absolute as the shell sees it.
func (s *stdio) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

// fail reports a program's error and returns its status.
func (s *stdio) fail(program string, err error) int {
	fmt.Fprintf(s.err, "%s: %v\n", program, err)
	return 1
}

// program runs with its arguments, its own name left out.
type program func(ctx context.Context, s *stdio, args []string) int

// words are the programs that an image's command may name; everything in tools
// may be named as well.
func words() map[string]program {
	all := tools()
	for name, p := range map[string]program{
		"pause": pause, "web": web, "client": client, "load": load, "crash": crash, "sh": shell, "bash": shell,
	} {
		all[name] = p
	}
	return all
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, _ := os.Getwd()
	s := &stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ(), dir: dir}
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	all := words()
	run, ok := all[name]
	if !ok {
		if len(args) == 0 {
			args = []string{"web"}
		}
		if run, ok = all[args[0]]; !ok {
			fmt.Fprintf(os.Stderr, "box: unknown program %q; there are: %s\n", args[0], strings.Join(names(all), " "))
			os.Exit(127)
		}
		args = args[1:]
	}
	os.Exit(run(ctx, s, args))
}

func names(all map[string]program) []string {
	var out []string
	for name := range all {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// pause does nothing until it is told to end.
func pause(ctx context.Context, _ *stdio, _ []string) int {
	<-ctx.Done()
	return 0
}
