// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"
)

// portWait is how long a port is waited for that another process has.
const portWait = 10 * time.Second

// Listen listens at a TCP address. A port that is taken is waited for, some seconds:
// the kernel may not be done yet with an agent that was killed. That is told once.
func Listen(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	wait, cancel := context.WithTimeout(ctx, portWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
		if !told {
			told = true
			log.Warn("another process has the port, which is waited for", "address", address, "seconds", portWait.Seconds())
		}
		select {
		case <-tick.C:
		case <-wait.Done():
			return nil, err
		}
	}
}
