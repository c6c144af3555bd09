// SPDX-License-Identifier: Apache-2.0

// Package kubectl runs the embedded kubectl executable. It unpacks it once per
// build into a cache and replaces the process with it.
package kubectl

import (
	"embed"
	"errors"
	"io/fs"
	"os"

	"kaji/internal/app/packed"
)

//go:embed all:assets
var assets embed.FS

// Exec replaces the process with kubectl, called with args (without the
// program's name). It returns only on failure.
func Exec(args []string) error {
	program := packed.Program{Name: "kubectl", Data: func() (fs.File, error) { return assets.Open("assets/kubectl.zst") }}
	err := program.Exec(append([]string{"kubectl"}, args...), os.Environ())
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("this build of kaji has no kubectl inside; build it with `make build`")
	}
	return err
}
