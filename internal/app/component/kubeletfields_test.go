// SPDX-License-Identifier: Apache-2.0

package component_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	configv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// without are the fields of KubeletConfiguration that are accepted and change
// nothing, or are refused where they would, and why.
var without = map[string]string{
	"SyncFrequency":                  "what changes wakes the worker of its pod; nothing is synced by the clock",
	"StreamingConnectionIdleTimeout": "upstream's agent does nothing with it either since it sends streams on to the runtime",
	"HairpinMode":                    "judged; the network is the runtime's, as with upstream",
	"RunOnce":                        "refused, as with upstream",
	"QOSReserved":                    "refused: its gate is alpha, and off",
	"EnableControllerAttachDetach":   "refused where it is false",
	"Tracing":                        "refused where it asks for traces",
	"MakeIPTablesUtilChains":         "there are no chains of iptables to keep: rules are nftables'",
	"IPTablesMasqueradeBit":          "judged; as above",
	"IPTablesDropBit":                "judged; as above",
	"ConfigMapAndSecretChangeDetectionStrategy": "judged; objects are watched, which shows what the others show, and sooner",
	"ShowHiddenMetricsForVersion":               "no metric is hidden",
	"VolumePluginDir":                           "FlexVolumes are not served",
	"EnableDebugFlagsHandler":                   "there is no /debug/flags/v: the verbosity is that of the start",
	"Logging.FlushFrequency":                    "the log is not buffered",
	"Logging.VModule":                           "one verbosity is for all",
	"Logging.Options":                           "judged by the format alone",
}

// Every field of KubeletConfiguration is read where the agent is put together, or
// named above with a reason.
func TestKubeletFields(t *testing.T) {
	read := map[string]bool{}
	files, err := filepath.Glob("kubelet*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files, "../../kubelet/config/reserve.go", "../../../cmd/kaji/kubelet.go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				read[s.Sel.Name] = true
			}
			return true
		})
	}
	seen := map[string]bool{}
	var walk func(at string, typ reflect.Type)
	walk = func(at string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				continue
			}
			name := strings.TrimPrefix(at+"."+f.Name, ".")
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			_, listed := without[name]
			seen[name] = true
			switch {
			case listed && read[f.Name] && !strings.Contains(name, "."): // what is nested has names that others have, too
				t.Errorf("%s is listed as without effect, but read", name)
			case listed:
			case inner.Kind() == reflect.Struct && !strings.Contains(inner.PkgPath(), "apimachinery"):
				walk(name, inner)
			case !read[f.Name]:
				t.Errorf("%s is neither read nor listed with a reason", name)
			}
		}
	}
	walk("", reflect.TypeFor[configv1beta1.KubeletConfiguration]())
	for name := range without {
		if !seen[name] {
			t.Errorf("there is no field %s", name)
		}
	}
}
