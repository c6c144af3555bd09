// SPDX-License-Identifier: Apache-2.0

// Command pack compresses an executable with zstd so that the build can embed it.
// It does nothing when the output holds that build already:
//
//	pack <input> <output.zst>
package main

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"kaji/internal/app/packed"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pack <input> <output.zst>")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(input, output string) error {
	there := packed.Program{Name: output, Data: func() (fs.File, error) { return os.Open(output) }}
	if there.Matches(input) {
		now := time.Now()
		return os.Chtimes(output, now, now) // for make
	}
	data, err := packed.Pack(input)
	if err != nil {
		return err
	}
	if err := os.WriteFile(output+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(output+".new", output)
}
