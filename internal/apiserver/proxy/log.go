// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kaji/internal/apiserver/request"
)

// maxErrorBody bounds what is read of a kubelet's error.
const maxErrorBody = 4 << 10

func (p *Proxy) log(w http.ResponseWriter, r *http.Request, in *request.Info) error {
	ctx := r.Context()
	opts := &corev1.PodLogOptions{}
	if err := readQuery(r.URL.Query(), opts); err != nil {
		return err
	}
	if errs := validateLog(opts); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, in.Name, errs)
	}
	pod, container, err := p.podOf(ctx, in, opts.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		// Nothing has been said yet.
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	location, err := p.kubeletOf(ctx, pod.Spec.NodeName)
	if err != nil {
		return err
	}
	location.Path = fmt.Sprintf("/containerLogs/%s/%s/%s", pod.Namespace, pod.Name, container)
	location.RawQuery = logQuery(opts).Encode()
	out, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return err
	}
	transport := p.kubelet
	if opts.InsecureSkipTLSVerifyBackend {
		transport = p.anywhere
	}
	answer, err := transport.RoundTrip(out)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return kubeletError(in, answer)
	}
	if wsstream.IsWebSocketRequest(r) {
		// Browsers read logs so; an error is the client's, who hung up.
		_ = wsstream.NewReader(&endsAlone{from: answer.Body}, true, wsstream.NewDefaultReaderProtocols()).Copy(w, r)
		return nil
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	copyLog(w, answer.Body, opts.Follow)
	return nil
}

// endsAlone reads the end, or an error, never together with data: what copies to
// WebSockets would drop the data then.
type endsAlone struct {
	from io.Reader
	end  error
}

func (r *endsAlone) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.from.Read(p)
	if n > 0 && err != nil {
		r.end, err = err, nil
	}
	return n, err
}

// copyLog streams a log; one that is followed is sent on at once.
func copyLog(w http.ResponseWriter, from io.Reader, follow bool) {
	if !follow {
		_, _ = io.Copy(w, from)
		return
	}
	control := http.NewResponseController(w)
	_ = control.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, writeErr := w.Write(buf[:n]); writeErr != nil {
				return
			}
			_ = control.Flush()
		}
		if err != nil {
			return
		}
	}
}

// kubeletError words what the kubelet refused.
func kubeletError(in *request.Info, answer *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	if err != nil {
		return err
	}
	err = apierrors.NewGenericServerResponse(answer.StatusCode, "get", schema.GroupResource{Resource: "pods/log"}, in.Name, string(body), 0, true)
	switch answer.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(fmt.Errorf("%s", body))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(string(body))
	}
	return err
}

func logQuery(o *corev1.PodLogOptions) url.Values {
	q := url.Values{}
	set := func(on bool, name string) {
		if on {
			q.Set(name, "true")
		}
	}
	number := func(n *int64, name string) {
		if n != nil {
			q.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	set(o.Follow, "follow")
	set(o.Previous, "previous")
	set(o.Timestamps, "timestamps")
	number(o.SinceSeconds, "sinceSeconds")
	number(o.TailLines, "tailLines")
	number(o.LimitBytes, "limitBytes")
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		q.Set("stream", *o.Stream)
	}
	return q
}

func validateLog(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	if o.Stream != nil {
		// Choosing a stream is an alpha feature (PodLogsQuerySplitStreams).
		errs = append(errs, field.Forbidden(field.NewPath("stream"), "may not be specified"))
	}
	return errs
}
