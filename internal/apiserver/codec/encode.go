// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
)

// Format is a form in which objects travel.
type Format int

// The formats the server speaks.
const (
	JSON Format = iota
	YAML
	Protobuf
)

// MediaType returns the format's media type as answers carry it.
func (f Format) MediaType() string {
	switch f {
	case YAML:
		return runtime.ContentTypeYAML
	case Protobuf:
		return runtime.ContentTypeProtobuf
	}
	return runtime.ContentTypeJSON
}

// SetRevision writes a store revision as the object's resourceVersion.
func SetRevision(obj api.Object, revision int64) {
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
}

// Encode returns obj, whose apiVersion and kind are set, in the format. JSON
// ends in a newline, as upstream's does.
func Encode(obj runtime.Object, format Format, pretty bool) ([]byte, error) {
	switch format {
	case Protobuf:
		m, ok := obj.(protoMessage)
		if !ok {
			return nil, fmt.Errorf("object %T does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message", obj)
		}
		return envelope(obj.GetObjectKind().GroupVersionKind(), m)
	case YAML:
		data, err := marshalJSON(obj)
		if err != nil {
			return nil, err
		}
		return yaml.JSONToYAML(data)
	}
	data, err := marshalJSON(obj)
	if err != nil || !pretty {
		return data, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimRight(data, "\n"), "", "  "); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// marshalJSON returns obj in JSON with a newline at the end.
func marshalJSON(obj runtime.Object) ([]byte, error) {
	var in any = obj
	switch o := obj.(type) {
	case *unstructured.Unstructured:
		in = o.Object
	case *unstructured.UnstructuredList:
		in = o.UnstructuredContent()
	}
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(in); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
