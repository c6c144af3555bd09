// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestJournal reads what systemd's journal would.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	there, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	handler, err := newJournal(path, "kubelet.service", slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	var own bytes.Buffer
	log := slog.New(both{slog.NewTextHandler(&own, nil), handler}).With("component", "node agent")
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Info("started") }, "PRIORITY=6\nMESSAGE=msg=started component=\"node agent\"\n"},
		{func() { log.WithGroup("g").Warn("two\nlines", "time", 3) }, "PRIORITY=4\nMESSAGE=msg=\"two\\nlines\" component=\"node agent\" g.time=3\n"},
		{func() { log.Error("failed", "err", errors.New("no")) }, "PRIORITY=3\nMESSAGE=msg=failed component=\"node agent\" err=no\n"},
		{func() { log.Debug("silent"); log.Info(strings.Repeat("x", 1<<20)) }, "PRIORITY=6\nMESSAGE=msg=" + strings.Repeat("x", journalBytes-len("msg=")) + "\n"},
	} {
		c.write()
		if err := there.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<20)
		n, err := there.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(string(got[:n]), "PRIORITY=")
		if !strings.Contains(head, "OBJECT_SYSTEMD_UNIT=kubelet.service\n") || !strings.Contains(head, "SYSLOG_IDENTIFIER=") {
			t.Errorf("fields %q", head)
		}
		if "PRIORITY="+rest != c.want {
			t.Errorf("got %.200q, want %.200q", rest, c.want)
		}
	}
	if text := own.String(); strings.Count(text, "\n") != 4 || !strings.Contains(text, "level=ERROR msg=failed") {
		t.Errorf("the log itself: %.300q", text)
	}
	if _, err := newJournal(path+"-none", "kubelet.service", slog.LevelInfo); err == nil {
		t.Error("no error without a journal")
	}
}
