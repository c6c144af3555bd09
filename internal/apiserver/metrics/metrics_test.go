// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// A scrape in protobuf has native histograms beside the classic buckets.
func TestNativeHistograms(t *testing.T) {
	m := New(Config{})
	m.durations.WithLabelValues("GET", "", "", "v1", "pods", "", "resource", component).Observe(0.03)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	decoder := expfmt.NewDecoder(w.Body, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for {
		var family dto.MetricFamily
		err := decoder.Decode(&family)
		if errors.Is(err, io.EOF) {
			t.Fatal("the family is not there")
		}
		if err != nil {
			t.Fatal(err)
		}
		if family.GetName() != "apiserver_request_duration_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if h.GetSchema() != 3 || len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) != len(timeBuckets) {
			t.Errorf("got %v", h)
		}
		return
	}
}
