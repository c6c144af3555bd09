// SPDX-License-Identifier: Apache-2.0

// Package program says which program runs: its file and its version. It imports
// next to nothing, for the light front (cmd/front) stands on it.
package program

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/component-base/version"
)

// variable names, in the environment of the main program, the file of the front
// that runs it.
const variable = "KAJI_PROGRAM"

// Path returns the file to start this program by: the front, where one runs this
// program, or the process's own file.
func Path() (string, error) {
	if front := os.Getenv(variable); front != "" {
		if info, err := os.Stat(front); err == nil && info.Mode().IsRegular() {
			return front, nil
		}
	}
	return os.Executable()
}

// Environment returns the environment of the main program behind the front in
// the file path.
func Environment(path string) []string {
	// Of two variables of a name the first counts.
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, variable+"=") })
	return append(inherited, variable+"="+path)
}

// Version is the line that `kaji version` prints.
func Version() string {
	v := version.Get()
	return fmt.Sprintf("kaji %s (%s, %s)", v.GitVersion, v.GoVersion, v.Platform)
}

// Release is the program's version alone.
func Release() string { return version.Get().GitVersion }
