// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// componentTimeout bounds one probe of a component.
const componentTimeout = 5 * time.Second

// componentPorts are where the components that run beside the server say that
// they are well.
var componentPorts = []struct {
	name string
	url  string
}{
	{"controller-manager", "https://127.0.0.1:10257/healthz"},
	{"scheduler", "https://127.0.0.1:10259/healthz"},
}

// componentStatuses asks the components of the control plane how they are.
func (s *Server) componentStatuses(ctx context.Context, _ *request.Info) ([]api.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, componentTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		// The components make their own certificates; what they say is no secret.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
	}
	var all []api.Object
	for _, c := range componentPorts {
		all = append(all, componentStatus(c.name, probe(ctx, transport, c.url)))
		if c.name == "controller-manager" {
			_, err := s.cfg.Store.Revision(ctx)
			all = append(all, componentStatus("etcd-0", err))
		}
	}
	return all, nil
}

func probe(ctx context.Context, transport http.RoundTripper, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: transport}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("unhealthy http status code: %d: %s", answer.StatusCode, body)
	}
	return nil
}

func componentStatus(name string, err error) api.Object {
	condition := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if err != nil {
		condition.Status, condition.Message = corev1.ConditionFalse, err.Error()
	}
	status := &corev1.ComponentStatus{Conditions: []corev1.ComponentCondition{condition}}
	status.Name = name
	status.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ComponentStatus"))
	return status
}
