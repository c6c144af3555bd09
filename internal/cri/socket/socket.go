// SPDX-License-Identifier: Apache-2.0

// Package socket reaches a container runtime in another process, such as
// containerd or CRI-O, over its gRPC socket. Errors keep their status codes.
package socket

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

// maxMessage is the size of messages that servers of the CRI use.
const maxMessage = 16 << 20

// Client is a connection to a runtime. It is safe for concurrent use and
// connects again by itself.
type Client struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
}

var (
	_ cri.Runtime     = (*Client)(nil)
	_ cri.Checkpoints = (*Client)(nil)
	_ cri.Images      = (*Client)(nil)
)

// Dial returns a client of an endpoint, "unix:///run/containerd/containerd.sock"
// or the bare path. The connection is made with the first call.
func Dial(endpoint string) (*Client, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("endpoint %q is no path of a unix socket", endpoint)
	}
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("runtime at %s: %w", endpoint, err)
	}
	return &Client{conn, runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Events delivers the runtime's events until ctx or the connection ends. What
// happens before the server has taken the call may be missed.
func (c *Client) Events(ctx context.Context) (<-chan *runtimeapi.ContainerEventResponse, error) {
	stream, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return nil, err
	}
	events := make(chan *runtimeapi.ContainerEventResponse)
	go func() {
		defer close(events)
		for {
			e, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
