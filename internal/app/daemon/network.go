// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// networkSocket is an abstract address: it exists once a network namespace, and
// ends with the process that has it.
const networkSocket = "@kaji-cluster"

// ErrNetworkTaken says that another cluster lives in this network namespace.
var ErrNetworkTaken = errors.New("another cluster uses this machine's network")

// HoldNetwork takes the network namespace that this process is in for a cluster:
// ports, rules and links of two would mix. It returns ErrNetworkTaken when
// another process has it.
func HoldNetwork(cluster string) (release func(), err error) {
	l, err := net.Listen("unix", networkSocket)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, ErrNetworkTaken
	}
	if err != nil {
		return nil, err
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second)) // who asks need not stay
			_, _ = io.WriteString(conn, cluster)
			conn.Close()
		}
	})
	return func() { l.Close(); served.Wait() }, nil
}

// NetworkHolder names the cluster that lives in this network namespace; empty when
// none does.
func NetworkHolder() string {
	conn, err := net.DialTimeout("unix", networkSocket, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // an answer that does not come is none
	name, _ := io.ReadAll(io.LimitReader(conn, 64))
	if len(name) == 0 {
		return "?"
	}
	return string(name)
}
