// SPDX-License-Identifier: Apache-2.0

// Package codec turns objects into bytes and back: as they are stored, as they
// travel in requests and answers, and which of these forms a client wants.
//
// The API server's verbs, object layer and cache call it. It knows kinds and
// versions; it holds no state but their table, and never validates.
package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
	"kaji/internal/store"
)

// protobufPrefix begins every protobuf body and stored value (upstream's
// envelope: this prefix and a runtime.Unknown).
var protobufPrefix = []byte{0x6b, 0x38, 0x73, 0x00}

type protoMessage interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// EncodeStored returns the bytes the store keeps for a hub object. The object
// is the caller's own; its resourceVersion is cleared, as it is not stored.
func EncodeStored(kind *api.Kind, hub api.Object) ([]byte, error) {
	hub.SetResourceVersion("")
	hub.SetSelfLink("")
	out, err := FromHub(request.ServedOf(kind, kind.StoredVersion()), hub)
	if err != nil {
		return nil, err
	}
	if m, ok := out.(protoMessage); ok && !kind.Custom {
		return envelope(out.GetObjectKind().GroupVersionKind(), m)
	}
	return marshalJSON(out)
}

// SameStored says whether EncodeStored would make the same of a hub object, which
// is left as it is.
func SameStored(kind *api.Kind, hub api.Object, stored []byte) (bool, error) {
	hub = api.Own(hub)
	hub.SetResourceVersion("")
	hub.SetSelfLink("")
	s := request.ServedOf(kind, kind.StoredVersion())
	if m, ok := hub.(protoMessage); ok && s.Hub && !kind.Custom {
		// To measure it costs less than to encode it.
		if total, _, _ := envelopeSize(s.GVK.GroupVersion().String(), s.GVK.Kind, m); total != len(stored) {
			return false, nil
		}
	}
	encoded, err := EncodeStored(kind, hub)
	return bytes.Equal(encoded, stored), err
}

// envelopeSize returns the size of an envelope, of what it says of the message, and
// of the message.
func envelopeSize(apiVersion, kind string, m protoMessage) (total, meta, size int) {
	size = m.Size()
	meta = 1 + varint(len(apiVersion)) + len(apiVersion) + 1 + varint(len(kind)) + len(kind)
	return len(protobufPrefix) + 1 + varint(meta) + meta + 1 + varint(size) + size + 4, meta, size
}

// envelope marshals m into the protobuf envelope, in one buffer.
func envelope(gvk schema.GroupVersionKind, m protoMessage) ([]byte, error) {
	apiVersion, kind := gvk.GroupVersion().String(), gvk.Kind
	total, meta, size := envelopeSize(apiVersion, kind, m)
	buf := make([]byte, 0, total)
	buf = append(buf, protobufPrefix...)
	buf = append(buf, 0x0a)
	buf = appendVarint(buf, meta)
	buf = append(buf, 0x0a)
	buf = appendVarint(buf, len(apiVersion))
	buf = append(buf, apiVersion...)
	buf = append(buf, 0x12)
	buf = appendVarint(buf, len(kind))
	buf = append(buf, kind...)
	buf = append(buf, 0x12)
	buf = appendVarint(buf, size)
	at := len(buf)
	buf = buf[:at+size]
	if _, err := m.MarshalToSizedBuffer(buf[at:]); err != nil {
		return nil, err
	}
	return append(buf, 0x1a, 0, 0x22, 0), nil
}

func varint(n int) int {
	size := 1
	for n >= 0x80 {
		n >>= 7
		size++
	}
	return size
}

func appendVarint(buf []byte, n int) []byte {
	for n >= 0x80 {
		buf = append(buf, byte(n)|0x80)
		n >>= 7
	}
	return append(buf, byte(n))
}

// DecodeStored returns the hub object of a stored value, defaulted, with its
// resourceVersion set.
func DecodeStored(kind *api.Kind, kv store.KeyValue) (api.Object, error) {
	obj, err := decodeStored(kind, kv.Value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
	}
	SetRevision(obj, kv.ModRevision)
	return obj, nil
}

func decodeStored(kind *api.Kind, value []byte) (api.Object, error) {
	if raw, ok := bytes.CutPrefix(value, protobufPrefix); ok {
		apiVersion, message, err := open(raw)
		if err != nil {
			return nil, err
		}
		v, err := storedVersion(kind, apiVersion)
		if err != nil {
			return nil, err
		}
		obj := v.New()
		m, ok := obj.(protoMessage)
		if !ok {
			return nil, fmt.Errorf("%T has no protobuf form", obj)
		}
		if err := m.Unmarshal(message); err != nil {
			return nil, err
		}
		return ToHub(request.ServedOf(kind, v), obj)
	}
	if kind.Custom {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(value); err != nil {
			return nil, err
		}
		v, err := storedVersion(kind, u.GetAPIVersion())
		if err != nil {
			return nil, err
		}
		// What the schema does not know any more is not shown; it goes with the
		// next write.
		if v.Coerce != nil {
			if _, err := v.Coerce(u, false); err != nil {
				return nil, err
			}
		}
		return ToHub(request.ServedOf(kind, v), u)
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(value, &meta); err != nil {
		return nil, err
	}
	v, err := storedVersion(kind, meta.APIVersion)
	if err != nil {
		return nil, err
	}
	obj := v.New()
	if err := json.Unmarshal(value, obj); err != nil {
		return nil, err
	}
	return ToHub(request.ServedOf(kind, v), obj)
}

// open returns what an envelope says and holds; the message is part of it.
func open(envelope []byte) (apiVersion string, message []byte, err error) {
	if typeMeta, rest, ok := firstField(envelope, 0x0a); ok {
		if version, _, ok := firstField(typeMeta, 0x0a); ok {
			if message, _, ok := firstField(rest, 0x12); ok {
				return string(version), message, nil
			}
		}
	}
	var u runtime.Unknown // written by somebody else, in another order
	err = u.Unmarshal(envelope)
	return u.APIVersion, u.Raw, err
}

// firstField returns the first field of a message, which must have the tag, and what
// follows.
func firstField(message []byte, tag byte) (value, rest []byte, ok bool) {
	if len(message) == 0 || message[0] != tag {
		return nil, nil, false
	}
	size, n := binary.Uvarint(message[1:])
	if n <= 0 || size > uint64(len(message)-1-n) {
		return nil, nil, false
	}
	message = message[1+n:]
	return message[:size], message[size:], true
}

func storedVersion(kind *api.Kind, apiVersion string) (*api.Version, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, err
	}
	if v := kind.Version(gv); v != nil {
		return v, nil
	}
	if kind.Custom {
		// A version that is served no more keeps its objects readable.
		return kind.StoredVersion(), nil
	}
	return nil, fmt.Errorf("stored version %q of %s is not known", apiVersion, kind.GroupResource())
}

var errNoHub = errors.New("the kind has no version whose type is the hub")

// HubVersion returns the version whose Go type is the kind's hub. Kinds have
// one; a custom kind's is its stored version.
func HubVersion(kind *api.Kind) *api.Version {
	if kind.Custom {
		return kind.StoredVersion()
	}
	if v := kind.StoredVersion(); v != nil && v.ToHub == nil {
		return v
	}
	for i := range kind.Versions {
		if kind.Versions[i].ToHub == nil {
			return &kind.Versions[i]
		}
	}
	return nil
}

// ToHub defaults obj, of version s, and returns it as the hub. obj is used up.
func ToHub(s *request.Served, obj api.Object) (api.Object, error) {
	if s.Version.Default != nil {
		s.Version.Default(obj)
	}
	return Convert(s, obj)
}

// Convert returns obj, of version s, as the hub without defaulting it. obj is
// used up.
func Convert(s *request.Served, obj api.Object) (api.Object, error) {
	hub := HubVersion(s.Kind)
	if hub == nil {
		return nil, errNoHub
	}
	if !s.Hub {
		out := s.Kind.New()
		if err := s.Version.ToHub(obj, out); err != nil {
			return nil, err
		}
		obj = out
	}
	obj.GetObjectKind().SetGroupVersionKind(request.ServedOf(s.Kind, hub).GVK)
	return obj, nil
}

// FromHub returns hub in version s with its apiVersion and kind set. The
// result may be hub itself; neither may be modified then.
func FromHub(s *request.Served, hub api.Object) (api.Object, error) {
	if s.Hub {
		if hub.GetObjectKind().GroupVersionKind() == s.GVK {
			return hub, nil
		}
		// A second version with the hub's own type: only the name differs.
		hub = hub.DeepCopyObject().(api.Object)
		hub.GetObjectKind().SetGroupVersionKind(s.GVK)
		return hub, nil
	}
	out := s.Version.New()
	if err := s.Version.FromHub(hub, out); err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(s.GVK)
	return out, nil
}

// Asks says that FromHub costs a request to somewhere else.
func Asks(s *request.Served) bool { return !s.Hub && s.Version.FromHubAll != nil }

// FromHubs returns what FromHub does, of many objects in one request. Asks must
// hold.
func FromHubs(s *request.Served, hubs []api.Object) ([]api.Object, error) {
	all, err := s.Version.FromHubAll(hubs)
	if err != nil {
		return nil, err
	}
	for _, out := range all {
		out.GetObjectKind().SetGroupVersionKind(s.GVK)
	}
	return all, nil
}
