// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// EncodeRaw returns the stored form of a message that is no object of a kind,
// such as a RangeAllocation.
func EncodeRaw(obj runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	m, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	return envelope(gvk, m)
}

// DecodeRaw reads what EncodeRaw made.
func DecodeRaw(value []byte, into runtime.Object) error {
	raw, ok := bytes.CutPrefix(value, protobufPrefix)
	m, isMessage := into.(protoMessage)
	if !ok || !isMessage {
		return errors.New("not a protobuf envelope")
	}
	var u runtime.Unknown
	if err := u.Unmarshal(raw); err != nil {
		return err
	}
	return m.Unmarshal(u.Raw)
}
