// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/exec"
)

// TestWebSocket runs commands over the protocol of today's clients.
func TestWebSocket(t *testing.T) {
	r := open(t, directory(t))
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "web")
	id := createBox(t, r, sandbox, pod, image, "sleep")
	startBox(t, r, id)
	defer removeAll(t, r)
	stream := func(req *runtimeapi.ExecRequest, o remotecommand.StreamOptions) error {
		req.ContainerId = id
		got, err := r.Exec(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		executor, err := remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", got.GetUrl())
		if err != nil {
			t.Fatal(err)
		}
		return executor.StreamWithContext(t.Context(), o)
	}
	var out bytes.Buffer
	err := stream(&runtimeapi.ExecRequest{Cmd: []string{"/box", "cat"}, Stdin: true, Stdout: true},
		remotecommand.StreamOptions{Stdin: strings.NewReader("there and back"), Stdout: &out})
	if err != nil || out.String() != "there and back" {
		t.Errorf("cat: %q, %v", out.String(), err)
	}
	err = stream(&runtimeapi.ExecRequest{Cmd: []string{"/box", "exit", "7"}, Stdout: true}, remotecommand.StreamOptions{Stdout: &out})
	if coded, ok := err.(exec.ExitError); !ok || coded.ExitStatus() != 7 {
		t.Errorf("exit: %v", err)
	}
}
