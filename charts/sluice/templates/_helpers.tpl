{{/* The name of everything made: `<release>-operator`. */}}
{{- define "sluice.fullname" -}}
{{- default (printf "%s-operator" .Release.Name) .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* The name of what has no namespace: two releases of one name in two namespaces must not meet. */}}
{{- define "sluice.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "sluice.fullname" .) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: sluice
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the operator may do wherever ChannelClusters are its own. Nothing here is by wildcard. */}}
{{- define "sluice.rules" -}}
# Its own kind: read the spec, report the status, never change the spec.
- apiGroups: [sluice.dev]
  resources: [channelclusters]
  verbs: [get, list, watch]
- apiGroups: [sluice.dev]
  resources: [channelclusters/status]
  verbs: [patch]
# An owner reference that blocks deletion needs this where that is enforced.
- apiGroups: [sluice.dev]
  resources: [channelclusters/finalizers]
  verbs: [update]
# What it makes for a cluster. What a spec no longer asks for (Redis, the disruption budget) is
# deleted, and a ConfigMap that somebody made immutable; the rest goes with its owner.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
# Tokens and the Redis password, each by its name: no list, no watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# Pods: the label that steers clients, the annotations that commit a drain. Pods go because the
# StatefulSet lets them, never by the operator's hand.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Whether a namespace is being deleted: then no pod in it waits for its clients. In a Role, as with
# watchNamespaces, this is the right to read that one namespace.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# `list`: why a pod does not start stands nowhere else.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
{{- end }}
