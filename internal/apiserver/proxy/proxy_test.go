// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestContainerOf(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers:     []corev1.Container{{Name: "a"}, {Name: "b"}},
		InitContainers: []corev1.Container{{Name: "i"}},
	}}
	pod.Name = "p"
	if got, err := containerOf(pod, "i"); err != nil || got != "i" {
		t.Errorf("init container: %q, %v", got, err)
	}
	if _, err := containerOf(pod, "x"); err == nil || err.Error() != "container x is not valid for pod p" {
		t.Errorf("unknown container: %v", err)
	}
	if _, err := containerOf(pod, ""); err == nil || err.Error() != "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]" {
		t.Errorf("no container: %v", err)
	}
	pod.Annotations = map[string]string{defaultContainer: "b"}
	if got, err := containerOf(pod, ""); err != nil || got != "b" {
		t.Errorf("default container: %q, %v", got, err)
	}
}

func TestProxyable(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true,
		"": false, "127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "nonsense": false,
	} {
		if got := proxyable(address) == nil; got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func TestSplitName(t *testing.T) {
	for id, want := range map[string][3]string{
		"s": {"http", "s", ""}, "s:80": {"http", "s", "80"}, "https:s:web": {"https", "s", "web"}, ":s:1": {"http", "s", "1"},
	} {
		scheme, name, port, ok := splitName(id)
		if !ok || [3]string{scheme, name, port} != want {
			t.Errorf("%q: %q %q %q %v", id, scheme, name, port, ok)
		}
	}
	for _, id := range []string{"a:b:c:d", "ftp:s:1"} {
		if _, _, _, ok := splitName(id); ok {
			t.Errorf("%q accepted", id)
		}
	}
}

func TestReadQuery(t *testing.T) {
	query := url.Values{
		"follow": {"true"}, "tailLines": {"5"}, "sinceTime": {"2020-01-01T00:00:00Z"}, "container": {"c"}, "timestamps": {"0"},
	}
	var log corev1.PodLogOptions
	if err := readQuery(query, &log); err != nil {
		t.Fatal(err)
	}
	if !log.Follow || *log.TailLines != 5 || log.SinceTime.Year() != 2020 || log.Container != "c" || log.Timestamps {
		t.Errorf("options %+v", log)
	}
	var forward corev1.PodPortForwardOptions
	if err := readQuery(url.Values{"ports": {"80,81", "82"}}, &forward); err != nil || len(forward.Ports) != 3 {
		t.Errorf("ports %v, %v", forward.Ports, err)
	}
	if err := readQuery(url.Values{"tailLines": {"x"}}, &log); err == nil || err.Error() != `strconv.ParseInt: parsing "x": invalid syntax` {
		t.Errorf("bad number: %v", err)
	}
}

func FuzzReadQuery(f *testing.F) {
	f.Add("follow=1&tailLines=3&sinceTime=x")
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		var log corev1.PodLogOptions
		if readQuery(query, &log) == nil {
			_ = logQuery(&log).Encode()
		}
	})
}
