// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// For are the Rules of a kind written over its own Go type; see Rules for the
// meaning of each field.
type For[T Object] struct {
	ValidateName        func(name string, prefix bool) []string
	PrepareForCreate    func(ctx context.Context, obj T)
	PrepareForUpdate    func(ctx context.Context, obj, old T)
	Validate            func(obj T) field.ErrorList
	ValidateUpdate      func(obj, old T) field.ErrorList
	Warnings            func(obj, old T) []string
	Canonicalize        func(obj T)
	CheckGracefulDelete func(obj T, options *metav1.DeleteOptions) bool
	Held                func(obj T) bool
	Permanent           func(name string) string
	BeforeDelete        func(obj T)
	TTL                 func(obj T) int64
	Fields              func(obj T) fields.Set
	Columns             []metav1.TableColumnDefinition
	Cells               func(obj T) []any
	Chosen              func(list iter.Seq[Object]) Object
	RowConditions       func(obj T) []metav1.TableRowCondition
}

// Rules lowers f to the untyped form the machine works with.
func (f For[T]) Rules() Rules {
	return Rules{
		ValidateName:        f.ValidateName,
		PrepareForCreate:    prepare(f.PrepareForCreate),
		PrepareForUpdate:    PrepareUpdate(f.PrepareForUpdate),
		Validate:            one[T, field.ErrorList](f.Validate),
		ValidateUpdate:      Update(f.ValidateUpdate),
		Warnings:            Warn(f.Warnings),
		Canonicalize:        Default(f.Canonicalize),
		CheckGracefulDelete: graceful(f.CheckGracefulDelete),
		Held:                one[T, bool](f.Held),
		Permanent:           f.Permanent,
		BeforeDelete:        Default(f.BeforeDelete),
		TTL:                 one[T, int64](f.TTL),
		Fields:              one[T, fields.Set](f.Fields),
		Columns:             f.Columns,
		Cells:               one[T, []any](f.Cells),
		Chosen:              f.Chosen,
		RowConditions:       one[T, []metav1.TableRowCondition](f.RowConditions),
	}
}

// Default lowers a typed in-place function, such as a Version's Default.
func Default[T Object](f func(T)) func(Object) {
	if f == nil {
		return nil
	}
	return func(o Object) { f(o.(T)) }
}

// Convert lowers a typed conversion for Version.ToHub and Version.FromHub.
func Convert[In, Out Object](f func(In, Out) error) func(in, out Object) error {
	return func(in, out Object) error { return f(in.(In), out.(Out)) }
}

// PrepareUpdate lowers a typed PrepareForUpdate, also for a Subresource.
func PrepareUpdate[T Object](f func(ctx context.Context, obj, old T)) func(context.Context, Object, Object) {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, o, old Object) { f(ctx, o.(T), old.(T)) }
}

// Update lowers a typed ValidateUpdate, also for a Subresource.
func Update[T Object](f func(obj, old T) field.ErrorList) func(Object, Object) field.ErrorList {
	if f == nil {
		return nil
	}
	return func(o, old Object) field.ErrorList { return f(o.(T), old.(T)) }
}

// Warn lowers a typed Warnings, also for a Subresource; on create f gets the
// zero T (a nil pointer) as old.
func Warn[T Object](f func(obj, old T) []string) func(Object, Object) []string {
	if f == nil {
		return nil
	}
	return func(o, old Object) []string {
		var prev T
		if old != nil {
			prev = old.(T)
		}
		return f(o.(T), prev)
	}
}

func prepare[T Object](f func(context.Context, T)) func(context.Context, Object) {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, o Object) { f(ctx, o.(T)) }
}

func graceful[T Object](f func(T, *metav1.DeleteOptions) bool) func(Object, *metav1.DeleteOptions) bool {
	if f == nil {
		return nil
	}
	return func(o Object, options *metav1.DeleteOptions) bool { return f(o.(T), options) }
}

func one[T Object, R any](f func(T) R) func(Object) R {
	if f == nil {
		return nil
	}
	return func(o Object) R { return f(o.(T)) }
}
