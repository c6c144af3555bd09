// SPDX-License-Identifier: Apache-2.0

package featuregate_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"kaji/internal/featuregate"
)

func TestWhatIsRefused(t *testing.T) {
	for said, want := range map[string]string{
		"Foo=true":                            "unrecognized feature gate: Foo",
		"Foo=false":                           "unrecognized feature gate: Foo",
		"AggregatedDiscoveryRemoveBetaType=0": "cannot set feature gate AggregatedDiscoveryRemoveBetaType to false, feature is locked to true",
		"GenericWorkload=maybe":               `invalid value of GenericWorkload: maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax`,
		"B=true,A=true":                       "[unrecognized feature gate: A, unrecognized feature gate: B]",
		"AggregatedDiscoveryRemoveBetaType=1": "",
		"GenericWorkload=true,AllAlpha=false": "",
		"AllBeta=true,AllAlpha=true":          "",
		"":                                    "",
	} {
		values := map[string]string{}
		for _, pair := range strings.Split(said, ",") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				values[name] = value
			}
		}
		_, err := featuregate.Parse(values)
		if got := text(err); got != want {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEnabled(t *testing.T) {
	for _, c := range []struct {
		said map[string]bool
		name string
		want bool
	}{
		{nil, "GenericWorkload", false},
		{nil, "APIServerIdentity", true},
		{map[string]bool{"GenericWorkload": true}, "GenericWorkload", true},
		{map[string]bool{"AllBeta": false}, "APIServerIdentity", false},
		{map[string]bool{"AllBeta": false, "APIServerIdentity": true}, "APIServerIdentity", true},
		{map[string]bool{"AllAlpha": true}, "APIServingWithRoutine", true},
		{map[string]bool{"AllAlpha": true}, "APIServerIdentity", true},
		{nil, "Foo", false},
	} {
		g, err := featuregate.New(c.said)
		if err != nil {
			t.Fatal(err)
		}
		if g.Enabled(c.name) != c.want {
			t.Errorf("%v: %s is %t", c.said, c.name, !c.want)
		}
	}
	if (featuregate.Gates{}).Enabled("GenericWorkload") || !(featuregate.Gates{}).Enabled("APIServerIdentity") {
		t.Error("the zero value has other defaults")
	}
}

func TestMetric(t *testing.T) {
	g, err := featuregate.New(map[string]bool{"GenericWorkload": true})
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(g)
	if n := testutil.CollectAndCount(g); n < 250 {
		t.Errorf("%d gates", n)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if l := m.GetLabel(); l[0].GetValue() == "GenericWorkload" && (m.GetGauge().GetValue() != 1 || l[1].GetName() != "stage" || l[1].GetValue() == "") {
			t.Errorf("GenericWorkload is told as %v", m)
		}
	}
}
