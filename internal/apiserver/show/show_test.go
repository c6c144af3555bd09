// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bytes"
	"encoding/json"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
)

// page returns two pods as they come from the cache.
func page(t *testing.T) *list.Page {
	kind := cachetest.Pods()
	b := cachetest.Start(t, cache.Config{}, kind)
	b.Put(kind, cachetest.Pod("ns", "a", "n1", map[string]string{"x": "<&>"}))
	b.Put(kind, cachetest.Pod("ns", "b", "n2", nil))
	o := &list.Options{Selection: list.Selection{Served: cachetest.Served(kind)}}
	p, err := list.Read(t.Context(), b.Cache, o)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(3)
	p.Continue, p.Remaining = "token", &left
	return p
}

func write(t *testing.T, p *list.Page, accept codec.Accept, query string) []byte {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	form, err := New(cachetest.Served(cachetest.Pods()), accept, values)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := form.List(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wholeList is the list as the standard library would encode it.
func wholeList(p *list.Page) *corev1.PodList {
	l := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: listMeta(p)}
	for _, e := range p.Entries {
		pod := *e.Object.(*corev1.Pod)
		pod.TypeMeta = metav1.TypeMeta{}
		l.Items = append(l.Items, pod)
	}
	return l
}

func TestJSONList(t *testing.T) {
	p := page(t)
	want, err := json.Marshal(wholeList(p))
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, p, codec.Accept{}, ""); string(got) != string(want)+"\n" {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, want, "", "  "); err != nil {
		t.Fatal(err)
	}
	if got := write(t, p, codec.Accept{Pretty: true}, ""); !bytes.Equal(got, indented.Bytes()) {
		t.Errorf("pretty: got %s", got)
	}
	asYAML, err := yaml.JSONToYAML(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, p, codec.Accept{Format: codec.YAML}, ""); !bytes.Equal(got, asYAML) {
		t.Errorf("yaml: got %s", got)
	}
}

func TestProtobufList(t *testing.T) {
	p := page(t)
	l := wholeList(p)
	raw, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Raw: raw}
	want, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, p, codec.Accept{Format: codec.Protobuf}, ""); string(got) != "k8s\x00"+string(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPartialList(t *testing.T) {
	as := metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	for _, format := range []codec.Format{codec.JSON, codec.Protobuf} {
		data := write(t, page(t), codec.Accept{As: &as, Format: format}, "")
		var l metav1.PartialObjectMetadataList
		if format == codec.Protobuf {
			var envelope runtime.Unknown
			if err := envelope.Unmarshal(data[4:]); err != nil {
				t.Fatal(err)
			}
			if err := l.Unmarshal(envelope.Raw); err != nil {
				t.Fatal(err)
			}
		} else if err := json.Unmarshal(data, &l); err != nil {
			t.Fatal(err)
		}
		if len(l.Items) != 2 || l.Items[0].Name != "a" || l.Items[0].Labels["x"] != "<&>" || *l.RemainingItemCount != 3 {
			t.Errorf("format %d: got %+v", format, l)
		}
	}
}

func TestTable(t *testing.T) {
	as := metav1.SchemeGroupVersion.WithKind("Table")
	for query, kind := range map[string]string{
		"":                       "PartialObjectMetadata",
		"includeObject=Metadata": "PartialObjectMetadata",
		"includeObject=Object":   "Pod",
		"includeObject=None":     "",
	} {
		var got struct {
			metav1.ListMeta   `json:"metadata"`
			ColumnDefinitions []metav1.TableColumnDefinition
			Rows              []struct {
				Cells  []any
				Object *metav1.PartialObjectMetadata
			}
		}
		if err := json.Unmarshal(write(t, page(t), codec.Accept{As: &as}, query), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.ColumnDefinitions) != 2 || len(got.Rows) != 2 || got.Rows[1].Cells[0] != "b" || got.Continue != "token" {
			t.Fatalf("%s: got %+v", query, got)
		}
		object := got.Rows[0].Object
		if (object == nil) != (kind == "") || object != nil && (object.Kind != kind || object.Name != "a") {
			t.Errorf("%s: row shows %+v, want a %s", query, object, kind)
		}
	}
}
