// SPDX-License-Identifier: Apache-2.0

// Package show turns entries of the cache into the bytes of answers: single
// objects, lists and the objects of watch events, in the version, shape and
// format a client asked for. What an entry looks like in one form is encoded
// once and shared by every answer that needs it.
//
// The API server's read verbs call it. Which objects are shown, package list
// decides; what a client accepts, package codec.
package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/table"
)

// shape is what an object is turned into.
type shape int

const (
	whole   shape = iota
	partial       // PartialObjectMetadata
	tabular       // Table
)

// Form is how one request wants objects shown. It belongs to that request.
type Form struct {
	served *request.Served
	accept codec.Accept
	shape  shape
	table  metav1.TableOptions
	// name keys the kept encodings: format, shape and version.
	name string
	// head is what a JSON document of the form begins with.
	head []byte
}

// New returns the form that a request accepts. The error is the one to answer
// with.
func New(served *request.Served, accept codec.Accept, query url.Values) (*Form, error) {
	f := &Form{served: served, accept: accept}
	gvk := served.GVK
	if accept.As != nil {
		switch accept.As.Kind {
		case "Table":
			f.shape = tabular
			options, err := table.Options(query)
			if err != nil {
				return nil, err
			}
			f.table = options
		default:
			f.shape = partial
			gvk = accept.As.GroupVersion().WithKind("PartialObjectMetadata")
		}
	}
	f.head = head(gvk)
	f.name = fmt.Sprintf("%d/%s", f.accept.Format, gvk)
	return f, nil
}

// Fits refuses a client that asks for the metadata of one object and gets a
// list, or the other way round. The error is a 406, and what was done is done.
func (f *Form) Fits(list bool) error {
	if f.shape != partial {
		return nil
	}
	listed := f.accept.As.Kind == "PartialObjectMetadataList"
	if listed == list {
		return nil
	}
	name := "*" + codec.InternalName(f.served.GVK.Group) + "." + f.served.Kind.Name
	if f.served.Kind.Custom {
		name = "*unstructured.Unstructured"
	}
	message := "you requested PartialObjectMetadataList, but the requested object is not a list (" + name + ")"
	if list {
		message = "you requested PartialObjectMetadata, but the requested object is a list (" + name + "List)"
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message,
	}}
}

// head is how the JSON of a typed object of gvk begins, up to the first field
// behind its type.
func head(gvk schema.GroupVersionKind) []byte {
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q`, gvk.Kind, gvk.GroupVersion().String())
}

// Format returns the format answers are written in.
func (f *Form) Format() codec.Format { return f.accept.Format }

// Object returns an entry as a document of the form, without the newline that
// ends an answer. A table of one row has its columns unless they were asked
// not to be sent. The bytes may be shared and must not be modified.
func (f *Form) Object(e *cache.Entry) ([]byte, error) {
	if f.shape == tabular {
		return f.oneRow(e)
	}
	return f.document(e)
}

// document returns an entry, whole or its metadata, in the form's format.
func (f *Form) document(e *cache.Entry) ([]byte, error) {
	format := f.accept.Format
	if format == codec.YAML {
		format = codec.JSON // turned into YAML at the end
	}
	object := f.object
	if f.shape == whole && codec.Asks(f.served) && e.Kept(f.name) == nil {
		// The entry keeps this too, and cannot while it makes its encoding.
		obj, err := list.InVersion(f.served, e)
		if err != nil {
			return nil, err
		}
		object = func(api.Object) (runtime.Object, error) { return obj, nil }
	}
	var failed error
	data := e.Encoded(f.name, func() []byte {
		obj, err := object(e.Whole())
		if err != nil {
			failed = err
			return nil
		}
		data, err := codec.Encode(obj, format, false)
		failed = err
		return bytes.TrimSuffix(data, []byte("\n"))
	})
	if data == nil && failed == nil {
		failed = fmt.Errorf("cannot encode %s", e.Key)
	}
	return data, failed
}

// Line returns a document with the newline that ends an answer. A document that
// was kept mostly has it behind its end already.
func Line(document []byte) []byte {
	if n := len(document); n < cap(document) && document[:n+1][n] == '\n' {
		return document[:n+1]
	}
	return append(document[:len(document):len(document)], '\n')
}

// object returns what a document of the form is made of.
func (f *Form) object(hub api.Object) (runtime.Object, error) {
	if f.shape != whole {
		gv := metav1.SchemeGroupVersion
		if f.accept.As != nil {
			gv = f.accept.As.GroupVersion()
		}
		return metadata(f.served.Kind, hub, gv), nil
	}
	return codec.FromHub(f.served, hub)
}

// Prepare makes ready what showing entries takes, where that is cheaper for
// all of them at once.
func (f *Form) Prepare(entries []*cache.Entry) error {
	if f.shape == partial {
		return nil
	}
	return list.Convert(f.served, entries)
}

func metadata(kind *api.Kind, obj api.Object, gv schema.GroupVersion) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(obj)
	if name := kind.FieldAnnotation; name != "" && p.Annotations[name] != "" {
		p.Annotations = maps.Clone(p.Annotations)
		delete(p.Annotations, name)
	}
	p.SetGroupVersionKind(gv.WithKind("PartialObjectMetadata"))
	return p
}

// Bookmark returns the document that stands for no object, only a revision.
func (f *Form) Bookmark(revision int64, initialEventsEnd bool) ([]byte, error) {
	obj := f.served.Kind.New()
	obj.GetObjectKind().SetGroupVersionKind(f.served.GVK)
	if initialEventsEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	codec.SetRevision(obj, revision)
	return f.Object(&cache.Entry{Object: obj, Revision: revision})
}

// oneRow returns a table with one row.
func (f *Form) oneRow(e *cache.Entry) ([]byte, error) {
	var b bytes.Buffer
	if err := f.tableHead(&b, metav1.ListMeta{ResourceVersion: e.Object.GetResourceVersion()}); err != nil {
		return nil, err
	}
	// The columns of a watch are sent once.
	f.table.NoHeaders = true
	if err := f.row(&b, e, false); err != nil {
		return nil, err
	}
	b.WriteString("]}")
	return b.Bytes(), nil
}

// tableHead writes a table up to its rows.
func (f *Form) tableHead(b *bytes.Buffer, list metav1.ListMeta) error {
	columns := []byte("null")
	if !f.table.NoHeaders {
		var err error
		if columns, err = json.Marshal(table.Columns(f.served)); err != nil {
			return err
		}
	}
	listMeta, err := json.Marshal(list)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, `{"kind":"Table","apiVersion":%q,"metadata":%s,"columnDefinitions":%s,"rows":[`,
		f.accept.As.GroupVersion().String(), listMeta, columns)
	return nil
}

// cells returns an entry's cells, one a column.
func (f *Form) cells(e *cache.Entry) ([]any, error) {
	if f.served.Version.Cells == nil {
		return table.Cells(f.served.Kind, e.Object), nil
	}
	obj, err := list.InVersion(f.served, e)
	if err != nil {
		return nil, err
	}
	return f.served.Version.Cells(obj), nil
}

// row writes one row of a table; chosen marks its name.
func (f *Form) row(b *bytes.Buffer, e *cache.Entry, chosen bool) error {
	values, err := f.cells(e)
	if err != nil {
		return err
	}
	if name, ok := values[0].(string); ok && chosen {
		values[0] = name + " (default)"
	}
	cells, err := json.Marshal(values)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, `{"cells":%s`, cells)
	if conditions := table.Conditions(f.served.Kind, e.Object); len(conditions) > 0 {
		data, err := json.Marshal(conditions)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, `,"conditions":%s`, data)
	}
	b.WriteString(`,"object":`)
	object := []byte("null")
	switch f.table.IncludeObject {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		object, err = (&Form{served: f.served, name: "0/" + f.served.GVK.String()}).document(e)
	default:
		gv := f.accept.As.GroupVersion()
		as := gv.WithKind("PartialObjectMetadata")
		object, err = (&Form{
			served: f.served, shape: partial, name: "0/" + as.String(), accept: codec.Accept{As: &as},
		}).document(e)
	}
	if err != nil {
		return err
	}
	b.Write(object)
	b.WriteByte('}')
	return nil
}
