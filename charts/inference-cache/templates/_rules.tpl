{{/* What the controller may do where its resources and their pods are: a ClusterRole's rules, or those of a Role in each namespace. */}}
{{- define "inference-cache.operator.rules" -}}
- apiGroups: [inferencecache.io]
  resources: [inferencecaches]
  verbs: [get, list, watch]
- apiGroups: [inferencecache.io]
  resources: [inferencecaches/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
{{- if .Values.artifacts.enabled }}
# Pods that have files fetched before any pod is replaced; as a dry run: may pods mount a folder of the node?
- apiGroups: [""]
  resources: [pods]
  verbs: [create, delete]
{{- end }}
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* What the webhook may do there. */}}
{{- define "inference-cache.webhook.rules" -}}
- apiGroups: [inferencecache.io]
  resources: [inferencecaches]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
