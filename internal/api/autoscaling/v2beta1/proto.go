// SPDX-License-Identifier: Apache-2.0

package v2beta1

import (
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The protobuf form is that of the published types, whose parts write
// themselves. What is not a pointer is always written, zero or not.

type marshaler interface{ Marshal() ([]byte, error) }

type unmarshaler interface{ Unmarshal(data []byte) error }

// writer appends the fields of a message; its first error stays.
type writer struct {
	out []byte
	err error
}

func (w *writer) message(field protowire.Number, m marshaler) {
	data, err := m.Marshal()
	if err != nil && w.err == nil {
		w.err = err
	}
	w.out = protowire.AppendTag(w.out, field, protowire.BytesType)
	w.out = protowire.AppendBytes(w.out, data)
}

func (w *writer) number(field protowire.Number, n int64) {
	w.out = protowire.AppendTag(w.out, field, protowire.VarintType)
	w.out = protowire.AppendVarint(w.out, uint64(n))
}

// read calls message or number, if there is one, with each field of a message.
// What nobody knows, a nil message, is passed over.
func read(data []byte, message func(field protowire.Number) unmarshaler, number func(field protowire.Number, n int64)) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		switch kind {
		case protowire.BytesType:
			content, n := protowire.ConsumeBytes(data)
			if n < 0 {
				return protowire.ParseError(n)
			}
			data = data[n:]
			if m := message(field); m != nil {
				if err := m.Unmarshal(content); err != nil {
					return err
				}
			}
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(data)
			if n < 0 {
				return protowire.ParseError(n)
			}
			data = data[n:]
			if number != nil {
				number(field, int64(value))
			}
		default:
			n := protowire.ConsumeFieldValue(field, kind, data)
			if n < 0 {
				return protowire.ParseError(n)
			}
			data = data[n:]
		}
	}
	return nil
}

// Marshal returns the protobuf form.
func (h *HorizontalPodAutoscaler) Marshal() ([]byte, error) {
	var w writer
	w.message(1, &h.ObjectMeta)
	w.message(2, &h.Spec)
	w.message(3, &h.Status)
	return w.out, w.err
}

// Size is the length of the protobuf form.
func (h *HorizontalPodAutoscaler) Size() int { return size(h) }

// MarshalToSizedBuffer writes the protobuf form to the end of a buffer.
func (h *HorizontalPodAutoscaler) MarshalToSizedBuffer(buf []byte) (int, error) {
	return fill(buf, h)
}

// Unmarshal reads the protobuf form.
func (h *HorizontalPodAutoscaler) Unmarshal(data []byte) error {
	return read(data, func(field protowire.Number) unmarshaler {
		switch field {
		case 1:
			return &h.ObjectMeta
		case 2:
			return &h.Spec
		case 3:
			return &h.Status
		}
		return nil
	}, nil)
}

// Marshal returns the protobuf form.
func (l *HorizontalPodAutoscalerList) Marshal() ([]byte, error) {
	var w writer
	w.message(1, &l.ListMeta)
	for i := range l.Items {
		w.message(2, &l.Items[i])
	}
	return w.out, w.err
}

// Size is the length of the protobuf form.
func (l *HorizontalPodAutoscalerList) Size() int { return size(l) }

// MarshalToSizedBuffer writes the protobuf form to the end of a buffer.
func (l *HorizontalPodAutoscalerList) MarshalToSizedBuffer(buf []byte) (int, error) {
	return fill(buf, l)
}

// Unmarshal reads the protobuf form.
func (l *HorizontalPodAutoscalerList) Unmarshal(data []byte) error {
	return read(data, func(field protowire.Number) unmarshaler {
		switch field {
		case 1:
			return &l.ListMeta
		case 2:
			return another(&l.Items)
		}
		return nil
	}, nil)
}

// Marshal returns the protobuf form.
func (s *HorizontalPodAutoscalerSpec) Marshal() ([]byte, error) {
	var w writer
	w.message(1, &s.ScaleTargetRef)
	if s.MinReplicas != nil {
		w.number(2, int64(*s.MinReplicas))
	}
	w.number(3, int64(s.MaxReplicas))
	for i := range s.Metrics {
		w.message(4, (*metric)(&s.Metrics[i]))
	}
	return w.out, w.err
}

// Unmarshal reads the protobuf form.
func (s *HorizontalPodAutoscalerSpec) Unmarshal(data []byte) error {
	return read(data, func(field protowire.Number) unmarshaler {
		switch field {
		case 1:
			return &s.ScaleTargetRef
		case 4:
			return (*metric)(another(&s.Metrics))
		}
		return nil
	}, func(field protowire.Number, n int64) {
		switch field {
		case 2:
			least := int32(n)
			s.MinReplicas = &least
		case 3:
			s.MaxReplicas = int32(n)
		}
	})
}

// Marshal returns the protobuf form.
func (s *HorizontalPodAutoscalerStatus) Marshal() ([]byte, error) {
	var w writer
	if s.ObservedGeneration != nil {
		w.number(1, *s.ObservedGeneration)
	}
	if s.LastScaleTime != nil {
		w.message(2, s.LastScaleTime)
	}
	w.number(3, int64(s.CurrentReplicas))
	w.number(4, int64(s.DesiredReplicas))
	for i := range s.CurrentMetrics {
		w.message(5, &s.CurrentMetrics[i])
	}
	for i := range s.Conditions {
		w.message(6, &s.Conditions[i])
	}
	return w.out, w.err
}

// Unmarshal reads the protobuf form.
func (s *HorizontalPodAutoscalerStatus) Unmarshal(data []byte) error {
	return read(data, func(field protowire.Number) unmarshaler {
		switch field {
		case 2:
			s.LastScaleTime = &metav1.Time{}
			return s.LastScaleTime
		case 5:
			return another(&s.CurrentMetrics)
		case 6:
			return another(&s.Conditions)
		}
		return nil
	}, func(field protowire.Number, n int64) {
		switch field {
		case 1:
			s.ObservedGeneration = &n
		case 3:
			s.CurrentReplicas = int32(n)
		case 4:
			s.DesiredReplicas = int32(n)
		}
	})
}

// metric is a metric of a spec. In this version, and only there, a container's
// name is field 4 of its source, not 5.
type metric autoscalingv1.MetricSpec

func (m *metric) Marshal() ([]byte, error) {
	rest := autoscalingv1.MetricSpec(*m)
	rest.ContainerResource = nil
	data, err := rest.Marshal()
	w := writer{data, err}
	if m.ContainerResource != nil {
		w.message(7, (*containerResource)(m.ContainerResource))
	}
	return w.out, w.err
}

func (m *metric) Unmarshal(data []byte) error {
	if err := (*autoscalingv1.MetricSpec)(m).Unmarshal(data); err != nil || m.ContainerResource == nil {
		return err
	}
	return read(data, func(field protowire.Number) unmarshaler {
		if field == 7 {
			return (*containerResource)(m.ContainerResource)
		}
		return nil
	}, nil)
}

type containerResource autoscalingv1.ContainerResourceMetricSource

func (c *containerResource) Marshal() ([]byte, error) {
	var w writer
	w.message(1, (*text)(&c.Name))
	if c.TargetAverageUtilization != nil {
		w.number(2, int64(*c.TargetAverageUtilization))
	}
	if c.TargetAverageValue != nil {
		w.message(3, c.TargetAverageValue)
	}
	w.message(4, (*text)(&c.Container))
	return w.out, w.err
}

// Unmarshal reads what version v1 has at another place.
func (c *containerResource) Unmarshal(data []byte) error {
	c.Container = ""
	return read(data, func(field protowire.Number) unmarshaler {
		if field == 4 {
			return (*text)(&c.Container)
		}
		return nil
	}, nil)
}

type text string

func (t *text) Marshal() ([]byte, error) { return []byte(*t), nil }

func (t *text) Unmarshal(data []byte) error {
	*t = text(data)
	return nil
}

// size and fill are what the published types do without writing twice; so rare
// a version need not be quick.
func size(m marshaler) int {
	data, _ := m.Marshal() // fill tells of an error
	return len(data)
}

func fill(buf []byte, m marshaler) (int, error) {
	data, err := m.Marshal()
	if err != nil {
		return 0, err
	}
	if len(data) > len(buf) {
		return 0, io.ErrShortBuffer
	}
	return copy(buf[len(buf)-len(data):], data), nil
}

// another appends an element to a list and returns it.
func another[T any, P interface {
	*T
	unmarshaler
}](list *[]T) P {
	*list = append(*list, *new(T))
	return P(&(*list)[len(*list)-1])
}
