<#-- What a login page asks of its experiment: <#import "experiment.ftl" as ab>. Without one, the answer is the default. -->

<#-- ${ab.value("title", msg("loginAccountTitle"))} -->
<#function value parameter default>
  <#local found = default>
  <#-- The next experiment may be one of another flag, whose parameter of this name is of another type: no page fails by it. -->
  <#attempt><#local found = (experiment.config[parameter].value)!default><#recover></#attempt>
  <#if found?is_boolean == default?is_boolean && found?is_sequence == default?is_sequence><#return found></#if>
  <#return default>
</#function>

<#-- <@ab.when "passkey_first">…</@ab.when> -->
<#macro when parameter><#if value(parameter, false)><#nested></#if></#macro>
