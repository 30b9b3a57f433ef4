{{/* One group of the webhook's replicas; called with (dict "root" $ "group" "a"). */}}
{{- define "inference-cache.webhook.deployment" -}}
{{- $part := dict "root" .root "component" "webhook" -}}
{{- $own := eq .root.Values.certificates.source "own" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "inference-cache.webhook.name" .root }}-{{ .group }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "inference-cache.labels" $part | nindent 4 }}
    inferencecache.io/webhook-group: {{ .group }}
spec:
  replicas: {{ int64 .root.Values.webhook.replicasPerGroup }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "inference-cache.selectorLabels" $part | nindent 6 }}
      inferencecache.io/webhook-group: {{ .group }}
  template:
    metadata:
      labels:
        {{- include "inference-cache.labels" $part | nindent 8 }}
        inferencecache.io/webhook-group: {{ .group }}
        {{- with .root.Values.webhook.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .root.Values.webhook.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "inference-cache.webhook.name" .root }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      securityContext:
        {{- include "inference-cache.podSecurityContext" .root | nindent 8 }}
      {{- with .root.Values.webhook.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- include "inference-cache.spread" $part | nindent 8 }}
      containers:
        - name: webhook
          image: {{ include "inference-cache.image" (dict "image" .root.Values.image "root" .root) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args:
            - webhook
            {{- include "inference-cache.commonArguments" .root | nindent 12 }}
            {{- if not $own }}
            - --tls-folder=/etc/inference-cache/tls
            {{- end }}
            {{- with .root.Values.webhook.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            {{- include "inference-cache.ownNames" .root | nindent 12 }}
          ports:
            - {name: webhook, containerPort: 9443, protocol: TCP}
            - {name: health, containerPort: 8081, protocol: TCP}
          {{- include "inference-cache.healthProbes" .root | nindent 10 }}
          # An API server may still call while the endpoints change.
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          resources:
            {{- toYaml .root.Values.webhook.resources | nindent 12 }}
          securityContext:
            {{- include "inference-cache.securityContext" .root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if not $own }}
            - {name: tls, mountPath: /etc/inference-cache/tls, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- if not $own }}
        - name: tls
          secret:
            secretName: {{ include "inference-cache.certificates.name" .root }}
        {{- end }}
      {{- with .root.Values.webhook.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.webhook.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- define "inference-cache.webhook.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "inference-cache.webhook.name" .root }}-{{ .group }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "inference-cache.labels" (dict "root" .root "component" "webhook") | nindent 4 }}
    inferencecache.io/webhook-group: {{ .group }}
spec:
  selector:
    {{- include "inference-cache.selectorLabels" (dict "root" .root "component" "webhook") | nindent 4 }}
    inferencecache.io/webhook-group: {{ .group }}
  ports:
    - {name: webhook, port: 443, targetPort: webhook, protocol: TCP}
{{- end -}}
