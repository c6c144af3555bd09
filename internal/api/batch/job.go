// SPDX-License-Identifier: Apache-2.0

package batch

import (
	batchv1 "k8s.io/api/batch/v1"

	"kaji/internal/api"
)

func job() *api.Kind {
	return &api.Kind{
		Group: batchv1.GroupName, Name: "Job", Resource: "jobs", Singular: "job",
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: batchv1.SchemeGroupVersion,
			New:          api.New[batchv1.Job], NewList: api.NewList[batchv1.JobList],
		}},
		Storage: batchv1.SchemeGroupVersion,
		Prefix:  "/registry/jobs",
		New:     api.New[batchv1.Job], NewList: api.NewList[batchv1.JobList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
