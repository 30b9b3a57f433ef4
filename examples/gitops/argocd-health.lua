-- The health of an InferenceCache, as Argo CD asks for it: `obj` is the resource, the result has a status and a message.
-- Nothing of the status counts before it speaks of the present spec.

local function condition(type)
  for _, each in ipairs(obj.status.conditions or {}) do
    if each.type == type then
      return each
    end
  end
  return {}
end

local function verdict(status, message)
  return {status = status, message = message or ""}
end

if obj.status == nil or obj.status.observedGeneration == nil then
  return verdict("Progressing", "Waiting for the operator")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return verdict("Progressing", "Waiting for the operator to take up the change")
end

local stalled, reconciling, ready = condition("Stalled"), condition("Reconciling"), condition("Ready")
if stalled.status == "True" then
  return verdict("Degraded", stalled.message)
end
if reconciling.status == "True" then
  return verdict("Progressing", reconciling.message)
end
if ready.status == "True" then
  return verdict("Healthy", ready.message)
end
return verdict("Progressing", ready.message or "Not ready yet")
