// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	translate "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kaji/internal/apiserver/request"
)

// defaultContainer is the annotation that names the container meant when a
// request does not say.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// podOf returns the pod a request names and the container meant.
func (p *Proxy) podOf(ctx context.Context, in *request.Info, container string) (*corev1.Pod, string, error) {
	obj, err := p.Objects.Fetch(ctx, podKind, in.Namespace, in.Name)
	if err != nil {
		return nil, "", err
	}
	pod := obj.(*corev1.Pod)
	container, err = containerOf(pod, container)
	return pod, container, err
}

func containerOf(pod *corev1.Pod, container string) (string, error) {
	var names, inits, debug []string
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		debug = append(debug, c.Name)
	}
	known := func(name string) bool {
		for _, list := range [][]string{names, inits, debug} {
			for _, n := range list {
				if n == name {
					return true
				}
			}
		}
		return false
	}
	if container != "" {
		if !known(container) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", container, pod.Name))
		}
		return container, nil
	}
	if name := pod.Annotations[defaultContainer]; name != "" && known(name) {
		return name, nil
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
	}
	message := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " "))
	if len(inits) > 0 {
		message += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	if len(debug) > 0 {
		message += fmt.Sprintf(" or one of the ephemeral containers: [%s]", strings.Join(debug, " "))
	}
	return "", apierrors.NewBadRequest(message)
}

// noHost is the answer for a pod that runs nowhere yet.
func noHost(pod *corev1.Pod) error {
	return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
}

// streams are those of exec and attach.
type streams struct{ in, out, err, tty bool }

func (s streams) query() url.Values {
	q := url.Values{}
	set := func(on bool, name string) {
		if on {
			q.Add(name, "1")
		}
	}
	set(s.in, corev1.ExecStdinParam)
	set(s.out, corev1.ExecStdoutParam)
	set(s.err, corev1.ExecStderrParam)
	set(s.tty, corev1.ExecTTYParam)
	return q
}

func (p *Proxy) exec(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	opts := &corev1.PodExecOptions{}
	if err := readQuery(r.URL.Query(), opts); err != nil {
		return err
	}
	s := streams{opts.Stdin, opts.Stdout, opts.Stderr, opts.TTY}
	query := s.query()
	for _, word := range opts.Command {
		query.Add("command", word)
	}
	if err := p.admit(r.Context(), in, opts); err != nil {
		return err
	}
	return p.terminal(w, r, in, "exec", opts.Container, s, query)
}

func (p *Proxy) attach(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	opts := &corev1.PodAttachOptions{}
	if err := readQuery(r.URL.Query(), opts); err != nil {
		return err
	}
	s := streams{opts.Stdin, opts.Stdout, opts.Stderr, opts.TTY}
	if err := p.admit(r.Context(), in, opts); err != nil {
		return err
	}
	return p.terminal(w, r, in, "attach", opts.Container, s, s.query())
}

// terminal passes exec and attach through to the kubelet. A client that speaks
// WebSocket is translated: kubelets speak SPDY.
func (p *Proxy) terminal(w http.ResponseWriter, r *http.Request, in *request.Info, what, container string, s streams, query url.Values) error {
	pod, container, err := p.podOf(r.Context(), in, container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return noHost(pod)
	}
	location, err := p.kubeletOf(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	location.Path = fmt.Sprintf("/%s/%s/%s/%s", what, pod.Namespace, pod.Name, container)
	location.RawQuery = query.Encode()
	plain := utilproxy.NewUpgradeAwareHandler(location, p.kubelet, false, true, responder{})
	translated := translate.NewStreamTranslatorHandler(location, p.kubelet, 0, translate.Options{
		Stdin: s.in, Stdout: s.out, Stderr: s.err, Tty: s.tty,
	})
	translate.NewTranslatingHandler(plain, translated, wsstream.IsWebSocketRequestWithStreamCloseProtocol).ServeHTTP(w, r)
	return nil
}

func (p *Proxy) portForward(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	opts := &corev1.PodPortForwardOptions{}
	if err := readQuery(r.URL.Query(), opts); err != nil {
		return err
	}
	if err := p.admit(r.Context(), in, opts); err != nil {
		return err
	}
	obj, err := p.Objects.Fetch(r.Context(), podKind, in.Namespace, in.Name)
	if err != nil {
		return err
	}
	pod := obj.(*corev1.Pod)
	if pod.Spec.NodeName == "" {
		return noHost(pod)
	}
	location, err := p.kubeletOf(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	location.Path = fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name)
	query := url.Values{}
	for _, port := range opts.Ports {
		query.Add(corev1.PortHeader, strconv.Itoa(int(port)))
	}
	location.RawQuery = query.Encode()
	plain := utilproxy.NewUpgradeAwareHandler(location, p.kubelet, false, true, responder{})
	tunnel := translate.NewTunnelingHandler(plain)
	translate.NewTranslatingHandler(plain, tunnel, wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(w, r)
	return nil
}
