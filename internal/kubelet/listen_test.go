// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"

	"kaji/internal/kubelet"
)

// A port that another process has is waited for, and not for ever.
func TestListen(t *testing.T) {
	for name, freed := range map[string]bool{"it comes free": true, "it stays taken": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				other, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
				log := &hook{then: func() {
					if freed {
						other.Close()
					}
				}}
				l, err := kubelet.Listen(t.Context(), other.Addr().String(), slog.New(slog.NewTextHandler(log, nil)))
				if freed && err != nil || !freed && !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("got %v", err)
				}
				if l != nil {
					l.Close()
				}
				if n := bytes.Count(log.told.Bytes(), []byte("\n")); n != 1 {
					t.Errorf("it was told %d times: %s", n, log.told.String())
				}
			})
		})
	}
}

// hook does something once the log has a line.
type hook struct {
	told bytes.Buffer
	then func()
}

func (h *hook) Write(line []byte) (int, error) {
	h.then()
	return h.told.Write(line)
}
