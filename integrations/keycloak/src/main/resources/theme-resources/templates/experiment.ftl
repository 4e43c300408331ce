<#-- What a login page asks of its experiment: <#import "experiment.ftl" as ab>. Without one, the answer is the default. -->

<#-- ${ab.value("title", msg("loginAccountTitle"))} -->
<#function value parameter default>
  <#return (experiment.config[parameter].value)!default>
</#function>

<#-- <@ab.when "passkey_first">…</@ab.when> -->
<#macro when parameter><#if value(parameter, false)><#nested></#if></#macro>
