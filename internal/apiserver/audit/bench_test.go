// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/request"
)

// BenchmarkStation is what the station costs a request at each level; the
// bodies of the last are not encoded here.
func BenchmarkStation(b *testing.B) {
	kinds := request.NewKinds(catalog.All()...)
	who := &user.DefaultInfo{Name: "system:admin", Groups: []string{"system:masters", "system:authenticated"}}
	for _, level := range []string{"None", "Metadata", "RequestResponse"} {
		b.Run(level, func(b *testing.B) {
			rules, err := audit.LoadPolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  users: [a, b]\n- level: " + level))
			if err != nil {
				b.Fatal(err)
			}
			station := audit.New(audit.Config{Policy: rules, Backend: audit.Log(io.Discard, false), LongRunning: apiserver.LongRunning})
			h := station.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/namespaces/default/pods/a", nil)
			in, err := request.Parse(r, kinds)
			if err != nil {
				b.Fatal(err)
			}
			ctx := request.WithUser(request.With(r.Context(), in), who)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r.WithContext(audit.Init(ctx, "f7a4c1f0-6f5e-4c39-9d33-8f6a1a0ff9a2")))
			}
		})
	}
}
