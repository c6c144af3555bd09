// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// shell is sh: a script by -c, by file name, or what comes in on stdin.
func shell(ctx context.Context, s *stdio, args []string) int {
	options, rest, command := []string{}, args, ""
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		flags := rest[0][1:]
		rest = rest[1:]
		for _, f := range flags {
			switch f {
			case 'c':
				if len(rest) == 0 {
					return s.fail("sh", errors.New("-c requires an argument"))
				}
				command, rest = rest[0], rest[1:]
			case 'i', 'l', 's':
			default:
				options = append(options, "-"+string(f))
			}
		}
	}
	if command != "" && len(rest) > 0 {
		rest = rest[1:] // $0
	}
	input, interactive := s.in, command == "" && len(rest) == 0 && isTerminal(s.in)
	if command == "" && len(rest) > 0 {
		file, err := os.Open(s.path(rest[0]))
		if err != nil {
			fmt.Fprintf(s.err, "sh: %v\n", err)
			return 127
		}
		defer file.Close()
		input, rest = file, rest[1:]
	}
	runner, err := interp.New(
		interp.StdIO(s.in, s.out, s.err), interp.Env(expand.ListEnviron(s.env...)), interp.Dir(s.dir),
		interp.Params(append(append(options, "--"), rest...)...), interp.ExecHandlers(toolHandler))
	if err != nil {
		return s.fail("sh", err)
	}
	if command != "" {
		input = strings.NewReader(command)
	}
	if interactive {
		return converse(ctx, s, runner)
	}
	return runScript(ctx, s, runner, input)
}

// runScript runs statement by statement, as they are read.
func runScript(ctx context.Context, s *stdio, runner *interp.Runner, input io.Reader) int {
	last := 0
	for statement, err := range syntax.NewParser().StmtsSeq(input) {
		if err != nil {
			fmt.Fprintf(s.err, "sh: %v\n", err)
			return 2
		}
		last = status(s, runner.Run(ctx, statement))
		if runner.Exited() {
			return last
		}
	}
	return last
}

// converse reads from a terminal, with a prompt.
func converse(ctx context.Context, s *stdio, runner *interp.Runner) int {
	parser := syntax.NewParser()
	last := 0
	fmt.Fprint(s.out, "/ # ")
	for statements, err := range parser.InteractiveSeq(s.in) {
		if err != nil {
			fmt.Fprintf(s.err, "sh: %v\n", err)
			return 2
		}
		if parser.Incomplete() {
			fmt.Fprint(s.out, "> ")
			continue
		}
		for _, statement := range statements {
			last = status(s, runner.Run(ctx, statement))
			if runner.Exited() {
				return last
			}
		}
		fmt.Fprintf(s.out, "%s # ", runner.Dir)
	}
	return last
}

func isTerminal(r io.Reader) bool {
	file, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// status is the exit status that an error of the interpreter stands for.
func status(s *stdio, err error) int {
	var exit interp.ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(s.err, "sh: %v\n", err)
	return 1
}

// toolHandler runs the tools in this process; other programs are executed.
func toolHandler(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	all := words()
	return func(ctx context.Context, args []string) error {
		run, ok := all[filepath.Base(args[0])]
		if !ok {
			return next(ctx, args)
		}
		h := interp.HandlerCtx(ctx)
		var env []string
		for name, v := range h.Env.Each {
			if v.Exported && v.Kind == expand.String {
				env = append(env, name+"="+v.Str)
			}
		}
		code := run(ctx, &stdio{in: h.Stdin, out: h.Stdout, err: h.Stderr, env: env, dir: h.Dir}, args[1:])
		if code != 0 {
			return interp.ExitStatus(code)
		}
		return nil
	}
}
