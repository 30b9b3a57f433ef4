{{/* All names are made here. At most 40 characters, so that 63 hold every suffix. */}}
{{- define "inference-cache.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) .Values.fullnameOverride -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "inference-cache.operator.name" -}}{{ include "inference-cache.fullname" . }}-operator{{- end -}}
{{- define "inference-cache.webhook.name" -}}{{ include "inference-cache.fullname" . }}-webhook{{- end -}}
{{- define "inference-cache.certificates.name" -}}{{ include "inference-cache.fullname" . }}-certificates{{- end -}}
{{- define "inference-cache.agent.name" -}}{{ include "inference-cache.fullname" . }}-agent{{- end -}}
{{- define "inference-cache.redis.name" -}}{{ include "inference-cache.fullname" . }}-redis{{- end -}}

{{/* Of objects without a namespace: two namespaced releases of one name may stand side by side. */}}
{{- define "inference-cache.clusterName" -}}
{{- $full := include "inference-cache.fullname" . -}}
{{- if .Values.namespaces }}{{ printf "%s-%s" $full .Release.Namespace }}{{ else }}{{ $full }}{{ end -}}
{{- end -}}

{{/* Called with (dict "root" $ "component" "operator"). */}}
{{- define "inference-cache.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "inference-cache.labels" -}}
{{ include "inference-cache.selectorLabels" . }}
app.kubernetes.io/part-of: inference-cache
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Called with (dict "image" .Values.image "root" $). */}}
{{- define "inference-cache.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end -}}
{{- end -}}

{{/* A number of a values file is a float, which would be written as 1e+06; text, such as 100Gi, stays. */}}
{{- define "inference-cache.amount" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{/* Settings of operator and webhook; one line each. */}}
{{- define "inference-cache.commonArguments" -}}
{{- range .Values.namespaces }}
- --namespace={{ . }}
{{- end }}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
- --sidecar-image={{ include "inference-cache.image" (dict "image" .Values.sidecar.image "root" .) }}
- --sidecar-pull-policy={{ .Values.sidecar.image.pullPolicy }}
- --certificates={{ .Values.certificates.source }}
{{- if eq .Values.certificates.source "own" }}
- --certificate-secret={{ include "inference-cache.certificates.name" . }}
{{- end }}
{{- if .Values.artifacts.enabled }}
- --artifacts-agent=http://{{ include "inference-cache.agent.name" . }}.{{ .Release.Namespace }}.svc:9182
- --artifacts-folder={{ .Values.artifacts.agent.hostPath }}
{{- end }}
{{- end -}}

{{- define "inference-cache.ownNames" -}}
- name: INFERENCE_CACHE_OPERATOR_OWN_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: INFERENCE_CACHE_OPERATOR_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}

{{- define "inference-cache.healthProbes" -}}
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 1
  failureThreshold: 2
{{- end -}}

{{/* Pod Security: restricted. */}}
{{- define "inference-cache.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "inference-cache.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Called with (dict "root" $ "component" "operator"): replicas on different nodes where there are several. */}}
{{- define "inference-cache.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "inference-cache.selectorLabels" . | nindent 6 }}
{{- end -}}
