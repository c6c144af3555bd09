// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"kaji/internal/lifecycle"
)

// What is being answered when the ports close goes on as long as whoever ends
// the process waits, and is cut off then.
func TestLeftover(t *testing.T) {
	for _, patient := range []bool{true, false} {
		leftover, opened, goOn := lifecycle.NewLeftover(), make(chan net.Addr, 1), make(chan struct{})
		s := New(Config{
			Listen: func(context.Context, uint16) (net.Listener, error) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err == nil {
					opened <- l.Addr()
				}
				return l, err
			},
			Handler: func(uint16, bool) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "begun ")
					_ = http.NewResponseController(w).Flush()
					select {
					case <-goOn:
						_, _ = io.WriteString(w, "ended")
					case <-r.Context().Done():
					}
				})
			},
			Divert:      func(uint16, string, net.Conn) func(context.Context, net.Conn) { return nil },
			Certificate: func(uint16, *tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
			Leftover:    leftover, Logger: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithCancel(t.Context())
		s.Want(ctx, map[uint16]bool{80: false})
		address := (<-opened).String()
		answer, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		stop()
		s.Wait()
		if _, err := net.Dial("tcp", address); err == nil {
			t.Error("the port is still open")
		}
		waiting, end := context.WithCancel(t.Context())
		if patient {
			close(goOn)
		} else {
			end()
		}
		leftover.Wait(waiting)
		end()
		got, err := io.ReadAll(answer.Body)
		if patient && string(got) != "begun ended" || !patient && err == nil {
			t.Errorf("patient %v: the answer was %q, %v", patient, got, err)
		}
	}
}
