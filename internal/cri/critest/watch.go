// SPDX-License-Identifier: Apache-2.0

package critest

import (
	"bytes"
	"io"
	"net/url"
	"strings"
	"testing"

	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// stream joins the streams behind a URL, by both protocols in turn.
func stream(t *testing.T, address string, websocket bool, options remotecommand.StreamOptions) error {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	config := &rest.Config{Host: u.Host}
	var executor remotecommand.Executor
	if websocket {
		executor, err = remotecommand.NewWebSocketExecutorForProtocols(config, "GET", address, remotecommandconsts.StreamProtocolV4Name)
	} else {
		executor, err = remotecommand.NewSPDYExecutor(config, "POST", u)
	}
	if err != nil {
		t.Fatal(err)
	}
	return executor.StreamWithContext(t.Context(), options)
}

func testStreams(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	id := p.start(p.container(image, "sleep"))
	for _, websocket := range []bool{false, true} {
		exec := func(tty bool, in io.Reader, args ...string) (string, string, error) {
			t.Helper()
			got, err := s.Runtime.Exec(t.Context(), &runtimeapi.ExecRequest{
				ContainerId: id, Cmd: append([]string{"/box"}, args...), Tty: tty, Stdin: in != nil, Stdout: true, Stderr: !tty,
			})
			if err != nil {
				t.Fatal(err)
			}
			var out, errOut bytes.Buffer
			options := remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty}
			if !tty {
				options.Stderr = &errOut
			}
			err = stream(t, got.GetUrl(), websocket, options)
			return out.String(), errOut.String(), err
		}
		if out, errOut, err := exec(false, nil, "then", "echo", "a", ";", "err", "b"); err != nil || out != "a\n" || errOut != "b\n" {
			t.Errorf("exec (WebSocket: %v): %q, %q, %v", websocket, out, errOut, err)
		}
		if !websocket { // its protocol v4 cannot tell the end of the input
			if out, _, err := exec(false, strings.NewReader("to and fro"), "cat"); err != nil || out != "to and fro" {
				t.Errorf("exec with input: %q, %v", out, err)
			}
		}
		if _, _, err := exec(false, nil, "exit", "7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("exec of a failing command (WebSocket: %v): %v", websocket, err)
		}
		if out, _, err := exec(true, nil, "echo", "on a terminal"); err != nil || out != "on a terminal\r\n" {
			t.Errorf("exec on a terminal (WebSocket: %v): %q, %v", websocket, out, err)
		}
	}
	c := p.container(image, "cat")
	c.Stdin, c.StdinOnce = true, true
	cat := p.start(c)
	got, err := s.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: cat, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := stream(t, got.GetUrl(), false, remotecommand.StreamOptions{Stdin: strings.NewReader("attached\n"), Stdout: &out, Stderr: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "attached\n" {
		t.Errorf("attached to %q", out.String())
	}
	if st := p.exited(cat); st.GetExitCode() != 0 {
		t.Errorf("cat ended with %v", st)
	}
	if p.log(c, "stdout") != "attached\n" {
		t.Errorf("the log of an attached container is %q", p.log(c, "stdout"))
	}
}

// An input that stays open for others (kubectl run --leave-stdin-open) lets a
// client go when it has said all; the container goes on.
func testLeavesInputOpen(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	c := p.container(image, "cat")
	c.Stdin = true
	cat := p.start(c)
	for _, line := range []string{"first\n", "second\n"} {
		got, err := s.Runtime.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: cat, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := stream(t, got.GetUrl(), false, remotecommand.StreamOptions{Stdin: strings.NewReader(line), Stdout: io.Discard, Stderr: io.Discard}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both lines in the log", func() bool { return p.log(c, "stdout") == "first\nsecond\n" })
	st, err := s.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: cat})
	if err != nil || st.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %v, %v", st.GetStatus().GetState(), err)
	}
}

func testEvents(t *testing.T, s Suite, image string) {
	events, err := s.Runtime.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := s.pod(t)
	id := p.start(p.container(image, "exit", "0"))
	p.exited(id)
	if _, err := s.Runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	want := []runtimeapi.ContainerEventType{
		runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
		runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
	}
	for len(want) > 0 {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the events end before %v", want)
			}
			if e.GetContainerId() != id {
				continue
			}
			if e.GetContainerEventType() != want[0] || e.GetPodSandboxStatus().GetId() != p.id {
				t.Fatalf("event %v of pod %s, want %v of %s", e.GetContainerEventType(), e.GetPodSandboxStatus().GetId(), want[0], p.id)
			}
			want = want[1:]
		case <-t.Context().Done():
			t.Fatalf("no event %v", want[0])
		}
	}
}

func testStats(t *testing.T, s Suite, image string) {
	p := s.pod(t)
	id := p.start(p.container(image, "sleep"))
	got, err := s.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	st := got.GetStats()
	if st.GetAttributes().GetId() != id || st.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || st.GetMemory().GetWorkingSetBytes().GetValue() == 0 ||
		st.GetWritableLayer().GetTimestamp() == 0 {
		t.Errorf("stats %v", st)
	}
	list, err := s.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{PodSandboxId: p.id}})
	if err != nil || len(list.GetStats()) != 1 {
		t.Errorf("ListContainerStats: %v, %v", list, err)
	}
	pod, err := s.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil || len(pod.GetStats().GetLinux().GetContainers()) != 1 || pod.GetStats().GetLinux().GetNetwork() == nil {
		t.Errorf("PodSandboxStats: %v, %v", pod, err)
	}
	if pods, err := s.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{}); err != nil || len(pods.GetStats()) == 0 {
		t.Errorf("ListPodSandboxStats: %v, %v", pods, err)
	}
}
