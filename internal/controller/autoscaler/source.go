// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"kaji/internal/client"
)

// source reads the metrics APIs. They are aggregated and have paths of their
// own shape, so they are read over HTTP in every case.
type source struct{ api client.Interface }

// value is a pod's metric in thousandths, and when and over what time it was
// taken.
type value struct {
	milli  int64
	at     time.Time
	window time.Duration
}

// most bounds an answer; a metric of 100,000 pods is smaller.
const most = 64 << 20

func (s *source) get(ctx context.Context, gv schema.GroupVersion, path func(*rest.Request) *rest.Request, into any) error {
	base := s.api.RESTConfig()
	if base == nil {
		return errors.New("there is no connection to the metrics APIs")
	}
	config := rest.CopyConfig(base)
	config.GroupVersion, config.APIPath = &gv, "/apis"
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	config.QPS = -1 // the server's flow control is the limit
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	answer := path(c.Get()).Timeout(30 * time.Second).Do(ctx)
	if err := answer.Error(); err != nil { // with what the metrics API itself says, which Raw leaves out
		return err
	}
	data, err := answer.Raw()
	if err != nil {
		return err
	}
	if len(data) > most {
		return fmt.Errorf("the metrics API answers with %d bytes", len(data))
	}
	return json.Unmarshal(data, into)
}

// resource returns what pods use of a resource, in one container or in all.
func (s *source) resource(ctx context.Context, name corev1.ResourceName, namespace, container string, selector labels.Selector) (map[string]value, error) {
	var list metrics.PodMetricsList
	err := s.get(ctx, metrics.SchemeGroupVersion, func(r *rest.Request) *rest.Request {
		return r.Namespace(namespace).Resource("pods").Param("labelSelector", selector.String())
	}, &list)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	out := map[string]value{}
	for i := range list.Items {
		m := &list.Items[i]
		v, complete, found := value{at: m.Timestamp.Time, window: m.Window.Duration}, true, false
		for _, c := range m.Containers {
			if container != "" && c.Name != container {
				continue
			}
			found = true
			used, ok := c.Usage[name]
			complete = complete && ok
			v.milli += used.MilliValue()
		}
		if complete && (found || container == "") {
			out[m.Name] = v
		}
	}
	return out, nil
}

// pods returns a custom metric of pods.
func (s *source) pods(ctx context.Context, name, namespace string, selector, metric labels.Selector) (map[string]value, error) {
	list, err := s.custom(ctx, []string{"namespaces", namespace, "pods", "*", name}, selector, metric)
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := map[string]value{}
	for i := range list.Items {
		m := &list.Items[i]
		window := time.Minute
		if m.WindowSeconds != nil {
			window = time.Duration(*m.WindowSeconds) * time.Second
		}
		out[m.DescribedObject.Name] = value{m.Value.MilliValue(), m.Timestamp.Time, window}
	}
	return out, nil
}

// object returns a custom metric of one object, in thousandths.
func (s *source) object(ctx context.Context, name, namespace string, ref *autoscalingv2.CrossVersionObjectReference, metric labels.Selector) (int64, error) {
	path := []string{"namespaces", ref.Name, "metrics", name}
	if ref.Kind != "Namespace" {
		gvr, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
		path = []string{"namespaces", namespace, gvr.GroupResource().String(), ref.Name, name}
	}
	list, err := s.custom(ctx, path, nil, metric)
	if err != nil {
		return 0, err
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from custom metrics API")
	}
	return list.Items[0].Value.MilliValue(), nil
}

func (s *source) custom(ctx context.Context, path []string, selector, metric labels.Selector) (*custom.MetricValueList, error) {
	var list custom.MetricValueList
	ask := func(r *rest.Request) *rest.Request {
		for _, segment := range path {
			r = r.Suffix(segment)
		}
		if selector != nil && !selector.Empty() {
			r = r.Param("labelSelector", selector.String())
		}
		if metric != nil && !metric.Empty() {
			r = r.Param("metricLabelSelector", metric.String())
		}
		return r
	}
	err := s.get(ctx, custom.SchemeGroupVersion, ask, &list)
	if unserved(err) {
		err = s.get(ctx, schema.GroupVersion{Group: custom.GroupName, Version: "v1beta1"}, ask, &list)
	}
	if unserved(err) {
		err = errors.New("no custom metrics API (custom.metrics.k8s.io) registered")
	}
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return &list, nil
}

// unserved says whether it was not a metrics API that said that there is
// nothing: the version is not served.
func unserved(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// external returns the sum of an external metric, in thousandths.
func (s *source) external(ctx context.Context, name, namespace string, metric labels.Selector) (int64, error) {
	var list external.ExternalMetricValueList
	err := s.get(ctx, external.SchemeGroupVersion, func(r *rest.Request) *rest.Request {
		return r.Namespace(namespace).Resource(name).Param("labelSelector", metric.String())
	}, &list)
	if err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	total := resource.Quantity{}
	for i := range list.Items {
		total.Add(list.Items[i].Value)
	}
	return total.MilliValue(), nil
}
