// SPDX-License-Identifier: Apache-2.0

// Package table has the columns and cell forms that the kinds' printers share.
// Only the packages of kinds call it; it reads the clock for ages and keeps no
// state.
package table

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Name is the column of metadata.name, the first of every kind.
func Name() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{
		Name: "Name", Type: "string", Format: "name",
		Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
	}
}

// Age is the column of the time since metadata.creationTimestamp.
func Age() metav1.TableColumnDefinition {
	return String("Age", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
}

// CreatedAt is the column of metadata.creationTimestamp itself.
func CreatedAt() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{
		Name: "Created At", Type: "date",
		Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
	}
}

// String is a column of text that is always shown.
func String(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

// Integer is a column of whole numbers that is always shown.
func Integer(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

// Boolean is a column of true and false that is always shown.
func Boolean(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "boolean", Description: description}
}

// Wide returns the column shown only with "-o wide".
func Wide(c metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	c.Priority = 1
	return c
}

// Since is the age of t in its short human form, "<unknown>" when t is zero.
func Since(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

// Until is the time left until t in its short human form, "<unknown>" when t
// is zero.
func Until(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Until(t.Time))
}

// Containers lists the names and the images of containers, comma-separated.
func Containers(containers []corev1.Container) (names, images string) {
	var n, i []string
	for _, c := range containers {
		n, i = append(n, c.Name), append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// ContainerColumns are the wide columns for the cells of Containers.
func ContainerColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		Wide(String("Containers", "Names of each container in the template.")),
		Wide(String("Images", "Images referenced by each container in the template.")),
	}
}

// Time is the cell of a column such as CreatedAt.
func Time(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }
