// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The script for bash completes verbs, flags and values behind = in a shell that
// has loaded nothing, and in one that has its own of the parts.
func TestBashCompletion(t *testing.T) {
	root := newRoot()
	var script bytes.Buffer
	root.SetOut(&script)
	root.SetArgs([]string{"completion", "bash"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, fake := filepath.Join(dir, "script"), filepath.Join(dir, "kaji")
	// The program that the script asks: it says what it was asked.
	answer := "#!/bin/sh\nshift; for last; do :; done\ncase $last in --network=*) echo host; echo own;; *) echo status; echo asked-$#;; esac\necho :4\n"
	if err := os.WriteFile(file, script.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fake, []byte(answer), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, words, want string }{
		{"a verb", `COMP_WORDS=(kaji st) COMP_CWORD=1 COMP_LINE="kaji st"`, "status "},
		{"behind =", `COMP_WORDS=(kaji up --network = h) COMP_CWORD=4 COMP_LINE="kaji up --network=h"`, "host "},
		{"the second word", `COMP_WORDS=(kaji logs "") COMP_CWORD=2 COMP_LINE="kaji logs "`, "status asked-2 "},
	} {
		for _, before := range []string{"", "_filedir() { :; }\n"} {
			cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-c",
				"compopt() { :; }\n"+before+". "+file+"\n"+c.words+"\nCOMP_POINT=${#COMP_LINE}\n__start_kaji\nfor r in \"${COMPREPLY[@]}\"; do printf '%s ' \"${r%% }\"; done")
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("%s: %q (%v), want %q", c.name, out, err, c.want)
			}
		}
	}
}

// The other shells' scripts are there; kubectl's questions are kubectl's.
func TestOtherCompletions(t *testing.T) {
	for shell, want := range map[string]string{"zsh": "#compdef kaji", "fish": "complete -c kaji", "powershell": "Register-ArgumentCompleter"} {
		root := newRoot()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs([]string{"completion", shell})
		if err := root.Execute(); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, without %q", shell, err, want)
		}
	}
	if err := completeKubectl([]string{"__complete", "up", ""}); err != nil {
		t.Error(err)
	}
}
