// SPDX-License-Identifier: Apache-2.0

package batch

import (
	batchv1 "k8s.io/api/batch/v1"

	"kaji/internal/api"
)

func cronJob() *api.Kind {
	return &api.Kind{
		Group: batchv1.GroupName, Name: "CronJob", Resource: "cronjobs", Singular: "cronjob",
		ShortNames: []string{"cj"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: batchv1.SchemeGroupVersion,
			New:          api.New[batchv1.CronJob], NewList: api.NewList[batchv1.CronJobList],
		}},
		Storage: batchv1.SchemeGroupVersion,
		Prefix:  "/registry/cronjobs",
		New:     api.New[batchv1.CronJob], NewList: api.NewList[batchv1.CronJobList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
