{{/* As webhook/configuration.py has them: which pods the API server sends. A test compares. */}}
{{- define "inference-cache.webhook.looksLikeVllm" -}}
name: looks-like-vllm
expression: >-
  (has(object.metadata.annotations) && object.metadata.annotations.exists(name, name.startsWith('inferencecache.io/'))) || object.spec.containers.exists(c, (has(c.image) && c.image.contains('vllm')) || (has(c.command) && c.command.exists(text, text.contains('vllm'))) || (has(c.args) && c.args.exists(text, text.contains('vllm'))) || (has(c.env) && c.env.exists(e, has(e.value) && e.value.contains('vllm')) && ((has(c.command) && c.command.exists(text, text.contains('$'))) || (has(c.args) && c.args.exists(text, text.contains('$'))))))
{{- end -}}

{{- define "inference-cache.webhook.notYetInjected" -}}
name: not-yet-injected
expression: >-
  !(has(object.metadata.annotations) && 'inferencecache.io/injection' in object.metadata.annotations && has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == 'inference-cache'))
{{- end -}}

{{/* What all entries have in common; called with (dict "root" $ "group" "a" "path" "/mutate" "policy" "Ignore"). */}}
{{- define "inference-cache.webhook.entry" -}}
clientConfig:
  service:
    namespace: {{ .root.Release.Namespace }}
    name: {{ include "inference-cache.webhook.name" .root }}-{{ .group }}
    port: 443
    path: {{ .path }}
failurePolicy: {{ .policy }}
sideEffects: NoneOnDryRun
admissionReviewVersions: [v1]
timeoutSeconds: 5
reinvocationPolicy: Never
matchPolicy: Equivalent
rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
{{- end -}}

{{- define "inference-cache.webhook.selectors" -}}
{{- /* The release's own is always among them: there the operator asks by a dry run whether the webhook is reached. */ -}}
{{- $excluded := without .Values.webhook.excludedNamespaces .Release.Namespace -}}
namespaceSelector:
  matchExpressions:
    {{- if .Values.namespaces }}
    - {key: kubernetes.io/metadata.name, operator: In, values: {{ append .Values.namespaces .Release.Namespace | uniq | toJson }}}
    {{- else if $excluded }}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ toJson $excluded }}}
    {{- else }}
    []
    {{- end }}
objectSelector:
  matchExpressions:
    - {key: app.kubernetes.io/part-of, operator: NotIn, values: [inference-cache]}
{{- end -}}
