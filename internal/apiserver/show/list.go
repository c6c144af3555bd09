// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/list"
)

// List writes a page as a list of the form. Big lists are written as they are
// encoded: no second copy of them is held. An error before the first byte was
// written can still be answered.
func (f *Form) List(w io.Writer, page *list.Page) error {
	if err := f.Prepare(page.Entries); err != nil {
		return err
	}
	if f.accept.Format == codec.Protobuf {
		return f.protobufList(w, page)
	}
	if f.accept.Format == codec.JSON && !f.accept.Pretty {
		b := bufio.NewWriterSize(w, 32<<10)
		if err := f.jsonList(b, page); err != nil {
			return err
		}
		return b.Flush()
	}
	var plain bytes.Buffer
	if err := f.jsonList(&plain, page); err != nil {
		return err
	}
	if f.accept.Format == codec.YAML {
		data, err := yaml.JSONToYAML(plain.Bytes())
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(plain.Bytes()), "", "  "); err != nil {
		return err
	}
	_, err := w.Write(pretty.Bytes())
	return err
}

// listMeta returns the metadata of a page.
func listMeta(page *list.Page) metav1.ListMeta {
	return metav1.ListMeta{
		ResourceVersion:    strconv.FormatInt(page.Revision, 10),
		Continue:           page.Continue,
		RemainingItemCount: page.Remaining,
	}
}

// jsonListMeta returns the metadata of a page as JSON. Lists of custom objects
// always name the next page.
func (f *Form) jsonListMeta(page *list.Page) ([]byte, error) {
	data, err := json.Marshal(listMeta(page))
	if err != nil || page.Continue != "" || f.shape != whole || !f.served.Kind.Custom {
		return data, err
	}
	return append([]byte(`{"continue":"",`), data[1:]...), nil
}

// listKind returns what the list of the form is called.
func (f *Form) listKind() schema.GroupVersionKind {
	if f.shape == partial {
		return f.accept.As.GroupVersion().WithKind("PartialObjectMetadataList")
	}
	return f.served.GVK.GroupVersion().WithKind(f.served.GVK.Kind + "List")
}

func (f *Form) jsonList(w io.Writer, page *list.Page) error {
	var b bytes.Buffer
	if f.shape == tabular {
		if err := f.tableHead(&b, listMeta(page)); err != nil {
			return err
		}
	} else {
		meta, err := f.jsonListMeta(page)
		if err != nil {
			return err
		}
		b.Write(head(f.listKind()))
		b.WriteString(`,"metadata":`)
		b.Write(meta)
		if f.shape == partial && len(page.Entries) == 0 {
			b.WriteString(`,"items":null}` + "\n")
			_, err := w.Write(b.Bytes())
			return err
		}
		b.WriteString(`,"items":[`)
	}
	chosen := f.chosen(page)
	for i, e := range page.Entries {
		if i > 0 {
			b.WriteByte(',')
		}
		if f.shape == tabular {
			if err := f.row(&b, e, e == chosen); err != nil {
				return err
			}
		} else {
			data, err := f.document(e)
			if err != nil {
				return err
			}
			if b.Len() > 0 {
				if _, err := w.Write(b.Bytes()); err != nil {
					return err
				}
				b.Reset()
			}
			if err := f.item(w, data); err != nil {
				return err
			}
		}
		if b.Len() > 16<<10 {
			if _, err := w.Write(b.Bytes()); err != nil {
				return err
			}
			b.Reset()
		}
	}
	b.WriteString("]}\n")
	_, err := w.Write(b.Bytes())
	return err
}

// chosen returns the entry of a page that is the default one of its kind, nil
// when none is.
func (f *Form) chosen(page *list.Page) (found *cache.Entry) {
	choose := f.served.Kind.Rules.Chosen
	if f.shape != tabular || choose == nil {
		return nil
	}
	one := choose(func(yield func(api.Object) bool) {
		for _, e := range page.Entries {
			if !yield(e.Object) {
				return
			}
		}
	})
	for _, e := range page.Entries {
		if one != nil && e.Object == one {
			return e
		}
	}
	return nil
}

// item writes a document as it stands in a list: the items of typed lists do
// not name their type.
func (f *Form) item(w io.Writer, document []byte) error {
	if f.shape == whole && !f.served.Kind.Custom {
		if rest, ok := bytes.CutPrefix(document, f.head); ok {
			if _, err := io.WriteString(w, "{"); err != nil {
				return err
			}
			document = bytes.TrimPrefix(rest, []byte(","))
		}
	}
	_, err := w.Write(document)
	return err
}

// Field numbers every list message has.
const (
	listMetaField = 1
	itemsField    = 2
)

// lengthDelimited is the key of an embedded message.
func lengthDelimited(field byte) byte { return field<<3 | 2 }

func (f *Form) protobufList(w io.Writer, page *list.Page) error {
	meta := listMeta(page)
	metaBytes, err := meta.Marshal()
	if err != nil {
		return err
	}
	// Every length stands before what it measures.
	size := 1 + varintLen(len(metaBytes)) + len(metaBytes)
	items := make([][]byte, len(page.Entries))
	for i, e := range page.Entries {
		document, err := f.document(e)
		if err != nil {
			return err
		}
		if items[i], err = message(document); err != nil {
			return err
		}
		size += 1 + varintLen(len(items[i])) + len(items[i])
	}
	b := bufio.NewWriterSize(w, 32<<10)
	b.Write(envelopeHead(f.listKind(), size))
	b.WriteByte(lengthDelimited(listMetaField))
	writeVarint(b, len(metaBytes))
	b.Write(metaBytes)
	for _, item := range items {
		b.WriteByte(lengthDelimited(itemsField))
		writeVarint(b, len(item))
		b.Write(item)
	}
	b.Write(envelopeTail)
	return b.Flush()
}

// envelopeTail are the empty contentEncoding and contentType of the envelope.
var envelopeTail = []byte{0x1a, 0, 0x22, 0}

// envelopeHead returns the protobuf envelope up to a message of a size.
func envelopeHead(gvk schema.GroupVersionKind, size int) []byte {
	apiVersion := gvk.GroupVersion().String()
	typeMeta := []byte{lengthDelimited(1)}
	typeMeta = binary.AppendUvarint(typeMeta, uint64(len(apiVersion)))
	typeMeta = append(typeMeta, apiVersion...)
	typeMeta = append(typeMeta, lengthDelimited(2))
	typeMeta = binary.AppendUvarint(typeMeta, uint64(len(gvk.Kind)))
	typeMeta = append(typeMeta, gvk.Kind...)

	out := []byte{'k', '8', 's', 0, lengthDelimited(1)}
	out = binary.AppendUvarint(out, uint64(len(typeMeta)))
	out = append(out, typeMeta...)
	out = append(out, lengthDelimited(2))
	return binary.AppendUvarint(out, uint64(size))
}

var errEnvelope = errors.New("malformed protobuf envelope")

// message returns the message inside an envelope of our own making.
func message(envelope []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(envelope, []byte{'k', '8', 's', 0, lengthDelimited(1)})
	if !ok {
		return nil, errEnvelope
	}
	size, n := binary.Uvarint(rest)
	if n <= 0 || uint64(len(rest)-n) < size+1 {
		return nil, errEnvelope
	}
	rest = rest[n+int(size)+1:] // the type and the key of what follows
	size, n = binary.Uvarint(rest)
	if n <= 0 || uint64(len(rest)-n) < size {
		return nil, errEnvelope
	}
	return rest[n : n+int(size)], nil
}

func varintLen(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(n))
}

func writeVarint(w *bufio.Writer, n int) {
	var b [binary.MaxVarintLen64]byte
	w.Write(b[:binary.PutUvarint(b[:], uint64(n))])
}
