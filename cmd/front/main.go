// SPDX-License-Identifier: Apache-2.0

// Command front is what a user calls kaji: a small program that starts in a few
// milliseconds, answers what needs little, and replaces itself with kubectl or
// the main program (cmd/kaji), which it holds packed, for everything else. See
// docs/decisions/0006-a-light-front.md.
package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kaji/internal/app/kubectl"
	"kaji/internal/app/packed"
	"kaji/internal/app/program"
	"kaji/internal/cni/command"
)

//go:embed all:assets
var assets embed.FS

// beside is the name of the main program where the build leaves it, next to this
// one.
const beside = "kaji-main"

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	own := strings.HasPrefix(name, "kaji") && len(args) > 0
	var err error
	switch {
	case name == command.Name || own && len(args) == 1 && args[0] == "cni":
		command.Main(program.Release())
	case own && len(args) == 1 && args[0] == "version":
		fmt.Println(program.Version())
	case own && args[0] == "kubectl":
		err = kubectl.Exec(args[1:])
	case name == "kubectl":
		err = kubectl.Exec(args)
	default:
		err = execMain()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kaji:", err)
		os.Exit(1)
	}
}

// execMain replaces the process with the main program. It returns only on
// failure.
func execMain() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env := program.Environment(self)
	whole := packed.Program{Name: "kaji", Data: func() (fs.File, error) { return assets.Open("assets/main.zst") }}
	if path := filepath.Join(filepath.Dir(self), beside); whole.Matches(path) {
		// It fails where the file is no executable here; then it is unpacked.
		_ = syscall.Exec(path, os.Args, env)
	}
	err = whole.Exec(os.Args, env)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("this build holds no main program; build it with `make build`")
	}
	return err
}
