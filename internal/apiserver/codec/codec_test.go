// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

func configMaps() *api.Kind {
	gv := corev1.SchemeGroupVersion
	return &api.Kind{
		Name: "ConfigMap", Resource: "configmaps", Namespaced: true,
		Versions: []api.Version{{GroupVersion: gv, New: api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList]}},
		Storage:  gv, Prefix: "/registry/configmaps",
		New: api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
	}
}

func example() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns", ResourceVersion: "7", Labels: map[string]string{"x": strings.Repeat("y", 200)}},
		Data:       map[string]string{"k": "<v>"},
	}
}

func TestStoredAsUpstreamStores(t *testing.T) {
	kind, obj := configMaps(), example()
	value, err := codec.EncodeStored(kind, obj.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	plain := obj.DeepCopy()
	plain.ResourceVersion = ""
	var upstream bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(plain, &upstream); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(value, upstream.Bytes()) {
		t.Errorf("stored %q, upstream stores %q", value, upstream.Bytes())
	}
	back, err := codec.DecodeStored(kind, store.KeyValue{Value: value, ModRevision: 7})
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(back, obj) {
		t.Errorf("read back %+v, want %+v", back, obj)
	}
}

func target(kind *api.Kind) codec.Target {
	return codec.TargetOf(request.NewKinds(kind), request.ServedOf(kind, &kind.Versions[0]))
}

func TestDecode(t *testing.T) {
	for _, tc := range []struct{ name, body, want string }{
		{"not json", `x`, `the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value (78)`},
		{"wrong type", `{"data":{"a":1}}`, `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"unknown kind", `{"kind":"Nope","apiVersion":"v1"}`, `Nope in version "v1" cannot be handled as a ConfigMap: no kind "Nope" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111"`},
	} {
		_, _, err := codec.Decode([]byte(tc.body), codec.JSON, target(configMaps()), true)
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v\nwant %s", tc.name, err, tc.want)
		}
	}
	obj, strict, err := codec.Decode([]byte("data: {a: b}\nextra: 1\n"), codec.YAML, target(configMaps()), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(strict) != 1 || strict[0].Error() != `unknown field "extra"` {
		t.Errorf("strict errors %v", strict)
	}
	if obj.(*corev1.ConfigMap).Data["a"] != "b" || obj.GetObjectKind().GroupVersionKind().Kind != "ConfigMap" {
		t.Errorf("decoded %+v", obj)
	}
}

func TestNegotiate(t *testing.T) {
	for _, tc := range []struct {
		accept string
		format codec.Format
		as     string
		fails  bool
	}{
		{"", codec.JSON, "", false},
		{"*/*", codec.JSON, "", false},
		{"application/yaml", codec.YAML, "", false},
		{"application/vnd.kubernetes.protobuf,application/json", codec.Protobuf, "", false},
		{"application/json;as=Table;v=v1;g=meta.k8s.io,application/json", codec.JSON, "Table", false},
		{"application/json;as=Bogus;v=v1;g=meta.k8s.io", codec.JSON, "", true},
		{"application/*", codec.JSON, "", true},
		{"text/html", codec.JSON, "", true},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", tc.accept)
		got, err := codec.Negotiate(r, false)
		if (err != nil) != tc.fails {
			t.Errorf("%q: %v", tc.accept, err)
			continue
		}
		as := ""
		if got.As != nil {
			as = got.As.Kind
		}
		if !tc.fails && (got.Format != tc.format || as != tc.as) {
			t.Errorf("%q: %+v", tc.accept, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	kind := configMaps()
	protobuf, err := codec.Encode(example(), codec.Protobuf, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"b"}}`), 0)
	f.Add([]byte("data: {a: b}"), 1)
	f.Add(protobuf, 2)
	f.Fuzz(func(t *testing.T, body []byte, format int) {
		obj, _, err := codec.Decode(body, codec.Format(format&3%3), target(kind), true)
		if err != nil {
			return
		}
		if _, err := codec.Encode(obj, codec.Protobuf, false); err != nil {
			t.Errorf("decoded but cannot be encoded: %v", err)
		}
	})
}

func FuzzDecodeStored(f *testing.F) {
	kind := configMaps()
	value, err := codec.EncodeStored(kind, example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte(`{"kind":"ConfigMap","apiVersion":"v1"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		obj, err := codec.DecodeStored(kind, store.KeyValue{Value: value, ModRevision: 3})
		if err == nil && obj.GetResourceVersion() != "3" {
			t.Error("no resourceVersion")
		}
	})
}
