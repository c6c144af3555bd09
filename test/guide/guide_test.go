// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaji/test/machine"
)

var keepGoing = flag.Bool("keep-going", false, "for authors: go on behind a step that fails, and do not repeat for long")

// TestGuide types every command of the guide's chapters, in order, on one
// machine, and compares what comes with what the page shows.
func TestGuide(t *testing.T) {
	m := machine.New(t)
	pages, err := filepath.Glob(filepath.Join(m.Root, "docs", "guide", "[0-9]*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no chapters: %v", err)
	}
	for _, page := range pages {
		ok := t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) { follow(t, m, page) })
		if !ok && !*keepGoing {
			t.Fatal("the chapters after it stand on it")
		}
	}
}

// follow does what a page says.
func follow(t *testing.T, m *machine.Machine, page string) {
	if _, err := os.Stat(m.DataDir()); err != nil && filepath.Base(page) != "01-start.md" {
		m.Must(t, "kaji", "up") // when only some chapters are asked for
	}
	if strings.HasSuffix(page, "-helm.md") {
		m.Helm(t)
	}
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	steps, quotes, err := parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range quotes {
		file, err := os.ReadFile(filepath.Join(m.Root, q.file))
		if err != nil || !strings.Contains(string(file), q.text) {
			t.Errorf("line %d: %s does not hold what the page shows (%v)", q.line, q.file, err)
		}
	}
	s, err := begin(t.Context(), m, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	for _, st := range steps {
		start := time.Now()
		do(t, s, st)
		t.Logf("%5.1f s  %s", time.Since(start).Seconds(), strings.Split(st.command, "\n")[0])
		if t.Failed() && !*keepGoing {
			return
		}
	}
}

// do runs one step, again when it only reads and the cluster is not there yet.
func do(t *testing.T, s *session, st step) {
	long := patience
	if *keepGoing {
		long = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		printed, code, err := s.run(st)
		if err != nil {
			t.Fatalf("line %d: $ %s\n%v; it printed\n%s", st.line, st.command, err, printed)
		}
		ok, missing := matches(st.expected, printed)
		if ok && (code == 0 || len(st.expected) > 0) {
			return
		}
		if again := st.repeatable(); again {
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
			}
		}
		t.Errorf("line %d: $ %s\nexit status %d; nothing matches the page's line\n  %s\nit printed\n%s", st.line, st.command, code, missing, printed)
		return
	}
}
