// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// extend returns an extender that keeps nodes off n1 and likes n3 best.
func extend(t *testing.T) configv1.Extender {
	mux := http.NewServeMux()
	mux.HandleFunc("/filter", func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil || args.NodeNames == nil {
			t.Errorf("filter got %+v, %v", args, err)
			return
		}
		kept := []string{}
		for _, name := range *args.NodeNames {
			if name != "n1" {
				kept = append(kept, name)
			}
		}
		_ = json.NewEncoder(w).Encode(extenderv1.ExtenderFilterResult{NodeNames: &kept, FailedNodes: extenderv1.FailedNodesMap{"n1": "not this one"}})
	})
	mux.HandleFunc("/prioritize", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(extenderv1.HostPriorityList{{Host: "n3", Score: extenderv1.MaxExtenderPriority}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return configv1.Extender{URLPrefix: server.URL, FilterVerb: "filter", PrioritizeVerb: "prioritize", Weight: 5, NodeCacheCapable: true,
		HTTPTimeout: metav1.Duration{Duration: time.Minute}}
}

func TestExtender(t *testing.T) {
	w := start(t, func(c *configv1.KubeSchedulerConfiguration) {
		broken := configv1.Extender{URLPrefix: "http://127.0.0.1:1", FilterVerb: "filter", Ignorable: true, NodeCacheCapable: true, HTTPTimeout: metav1.Duration{Duration: time.Minute}}
		c.Extenders = []configv1.Extender{broken, extend(t)}
	})
	create(w, node("n1", "4"))
	create(w, pod("alone", ""))
	w.refused("alone", "0/1 nodes are available: 1 not this one. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
	create(w, node("n2", "4"))
	create(w, node("n3", "4"))
	w.lands("alone", "n2", "n3") // the first of them may have come before the other
	create(w, pod("p", ""))
	w.lands("p", "n3")
}

// An extender that cannot be reached, and matters, is a failure and no refusal.
func TestBrokenExtender(t *testing.T) {
	w := start(t, func(c *configv1.KubeSchedulerConfiguration) {
		c.Extenders = []configv1.Extender{{URLPrefix: "http://127.0.0.1:1", FilterVerb: "filter", NodeCacheCapable: true, HTTPTimeout: metav1.Duration{Duration: time.Minute}}}
	})
	create(w, node("n1", "4"))
	create(w, pod("p", ""))
	w.eventually("the failure", func() bool {
		for _, c := range w.pod("p").Status.Conditions {
			if c.Reason == "SchedulerError" {
				return true
			}
		}
		return false
	})
	if p := w.pod("p"); p.Spec.NodeName != "" {
		t.Errorf("bound to %s", p.Spec.NodeName)
	}
}
